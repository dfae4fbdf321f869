//! A private node: virtual hosts, counts, alarm, kill and restart.

use std::time::Duration;

use porchlight_testbed::{RabbitMq, wait_for};

/// Declares a durable queue with two persistent messages in it, from inside the node: no client library here.
fn declare_with_two(vhost: &str, kind: &str) -> String {
    format!(
        "{{ok, _}} = application:ensure_all_started(amqp_client), \
         {{ok, C}} = amqp_connection:start({{amqp_params_direct, <<\"guest\">>, none, <<\"{vhost}\">>, node(), none, []}}), \
         {{ok, Ch}} = amqp_connection:open_channel(C), \
         Args = [{{<<\"x-queue-type\">>, longstr, <<\"{kind}\">>}}], \
         amqp_channel:call(Ch, {{'queue.declare', 0, <<\"work\">>, false, true, false, false, false, Args}}), \
         amqp_channel:call(Ch, {{'confirm.select', false}}), \
         Props = {{'P_basic', undefined, undefined, undefined, 2, undefined, undefined, undefined, undefined, \
           undefined, undefined, undefined, undefined, undefined, undefined}}, \
         [amqp_channel:call(Ch, {{'basic.publish', 0, <<>>, <<\"work\">>, false, false}}, \
           {{amqp_msg, Props, <<\"body\">>}}) || _ <- [1, 2]], \
         true = amqp_channel:wait_for_confirms(Ch, 60), amqp_connection:close(C), []"
    )
}

#[tokio::test]
async fn counts_of_a_shared_node_are_exact_and_apart_by_virtual_host() {
    let broker = RabbitMq::shared().await;
    let (first, second) = (broker.vhost().await.unwrap(), broker.vhost().await.unwrap());
    assert_ne!(first, second);
    for kind in ["quorum", "classic"] {
        let vhost = broker.vhost().await.unwrap();
        broker.eval(&declare_with_two(&vhost, kind)).await.unwrap();
        let state = broker.queue(&vhost, "work").await.unwrap();
        assert_eq!((state.ready, state.unacked, state.consumers), (2, 0, 0), "{kind}");
        broker.purge(&vhost, "work").await.unwrap();
        assert_eq!(broker.queue(&vhost, "work").await.unwrap().ready, 0);
        broker.delete_queue(&vhost, "work").await.unwrap();
        broker.delete_vhost(&vhost).await.unwrap();
    }
    assert!(broker.queues(&first).await.unwrap().is_empty());
}

#[tokio::test]
async fn policies_and_errors_of_a_shared_node_come_back() {
    let broker = RabbitMq::shared().await;
    let vhost = broker.vhost().await.unwrap();
    broker
        .set_policy(&vhost, "short", "^work$", r#"{"max-length": 5}"#)
        .await
        .unwrap();
    assert!(
        broker
            .set_policy(&vhost, "odd", ".*", r#"{"max-length": "x"}"#)
            .await
            .is_err()
    );
    broker.clear_policy(&vhost, "short").await.unwrap();
    assert!(broker.queue(&vhost, "none").await.is_err());
    assert!(broker.unbind(&vhost, "amq.fanout", "none").await.is_err());
    assert_eq!(broker.connection_count(&vhost).await.unwrap(), 0);
    broker.close_all_connections(&vhost).await.unwrap();
}

#[tokio::test]
async fn a_killed_node_comes_back_on_its_port_with_its_data() {
    let broker = RabbitMq::start().await.unwrap();
    let vhost = broker.vhost().await.unwrap();
    broker.eval(&declare_with_two(&vhost, "quorum")).await.unwrap();
    let url = broker.url_for_vhost(&vhost);

    broker.kill();
    assert!(!broker.is_running());
    assert!(broker.queues(&vhost).await.is_err());
    broker.start_again().await.unwrap();
    assert_eq!(broker.url_for_vhost(&vhost), url);
    let two = async || match broker.queue(&vhost, "work").await {
        Ok(state) if state.ready == 2 => Ok(()),
        other => Err(format!("{other:?}")),
    };
    wait_for("both messages to be back", Duration::from_secs(120), two)
        .await
        .unwrap();

    broker.set_memory_alarm(true).await.unwrap();
    broker.set_memory_alarm(false).await.unwrap();
    broker.pause();
    broker.resume();
    broker.restart().await.unwrap();
    wait_for("both messages to be back", Duration::from_secs(120), two)
        .await
        .unwrap();
}
