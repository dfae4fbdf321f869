//! The stop: nobody who was heard goes without an answer.

use porchlight_service::stop::Drained;
use porchlight_testbed::http::RawConnection;
use porchlight_testbed::wait_for;

use crate::support::{BODY, Ingress, SOON, passed, signed, told};

#[tokio::test]
async fn a_request_that_has_begun_is_answered_and_an_idle_connection_is_closed() {
    let ingress = Ingress::start(&[]).await;
    let request = signed(BODY);
    let mut idle = ingress.connect().await;
    idle.send(&request).await.unwrap();
    idle.response().await.unwrap();
    let mut begun = ingress.connect().await;
    begun.send(&request[..request.len() - 1]).await.unwrap();
    ingress.counts("porchlight_ingress_body_memory_bytes 3").await;

    ingress.stop.cancel();
    assert_eq!(idle.closed_within(SOON).await.unwrap(), b""[..]);
    begun.send(&request[request.len() - 1..]).await.unwrap();
    let answer = begun.response().await.unwrap();
    assert_eq!(told(&answer), passed());
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(matches!(ingress.ended.await.unwrap(), Drained::Met { .. }));
    assert!(
        RawConnection::open(ingress.public).await.is_err(),
        "nothing listens any more"
    );
}

#[tokio::test]
async fn before_it_closes_it_is_not_ready_but_serves_and_ends_each_connection() {
    let ingress = Ingress::start(&["--drain-delay", "5s"]).await;
    let mut open = ingress.connect().await;
    open.send(&signed(BODY)).await.unwrap();
    assert_eq!(open.response().await.unwrap().header("connection"), None);
    ingress.stop.cancel();
    wait_for("not ready", SOON, async || {
        if ingress.not_ready_for("stopping").await {
            Ok(())
        } else {
            Err("ready".to_owned())
        }
    })
    .await
    .unwrap();
    let fresh = ingress.send(&signed(BODY)).await;
    assert_eq!(
        (told(&fresh), fresh.header("connection")),
        (passed(), Some("close"))
    );
    open.send(&signed(BODY)).await.unwrap();
    assert_eq!(open.response().await.unwrap().header("connection"), Some("close"));
    assert!(matches!(ingress.ended.await.unwrap(), Drained::Met { .. }));
}

#[tokio::test]
async fn a_connection_that_was_just_opened_still_gets_its_answer() {
    let ingress = Ingress::start(&[]).await;
    let mut idle = ingress.connect().await;
    idle.send(&signed(BODY)).await.unwrap();
    idle.response().await.unwrap();
    let mut fresh = ingress.connect().await;
    ingress.counts("porchlight_ingress_connections 2").await;
    ingress.stop.cancel();
    // Once the idle one is closed, all have been told to end.
    idle.closed_within(SOON).await.unwrap();
    fresh.send(&signed(BODY)).await.unwrap();
    assert_eq!(told(&fresh.response().await.unwrap()), passed());
}

#[tokio::test]
async fn a_client_that_never_ends_does_not_hold_up_the_stop() {
    let ingress = Ingress::start(&["--shutdown-grace", "300ms"]).await;
    let mut holder = ingress.connect().await;
    let request = signed(BODY);
    holder.send(&request[..request.len() - 1]).await.unwrap();
    ingress.counts("porchlight_ingress_body_memory_bytes 3").await;
    ingress.stop.cancel();
    assert_eq!(ingress.ended.await.unwrap(), Drained::Missed { left: 1 });
    holder.closed_within(SOON).await.unwrap();
}
