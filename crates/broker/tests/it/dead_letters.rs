//! Dead letters: looking without taking, and replaying without losing.

use std::{ops::ControlFlow, time::Duration};

use bytes::Bytes;
use porchlight_broker::DeathNote;
use porchlight_broker::{
    BrokerUrls, DeadLetter, DeadLetterError, Origin, Outgoing, PublishError, Publisher, ReplayOptions,
    ReplaySummary, StopReason,
    dead_letter::{Listed, list},
    replay::{Owing, Settled, replay},
    topology::{COMMANDS, DEAD, UNROUTED},
};
use porchlight_event::{Envelope, envelope::header};

use crate::support::{EVENTS, event, exhaust, fresh, plain, publish, publisher, settle_at, take};

const NOTE: DeathNote<'_> = DeathNote {
    reason: "not_json",
    stage: "parse",
    detail: "the body is not JSON",
    at_ms: 1_771_025_567_000,
};

fn envelope(body: &str) -> Envelope {
    Envelope::bare(Bytes::from(body.to_owned()))
}

async fn bury(publisher: &Publisher, count: usize) {
    for number in 0..count {
        publish(publisher, Outgoing::dead(&envelope(&number.to_string()), NOTE))
            .await
            .unwrap();
    }
}

async fn letters(url: &str, count_max: usize) -> (Listed, Vec<DeadLetter>) {
    let mut letters = Vec::new();
    let urls = BrokerUrls::parse(url).unwrap();
    let listed = list(&urls, "test-dead", count_max, |letter| {
        letters.push(letter);
        ControlFlow::Continue(())
    });
    (listed.await.unwrap(), letters)
}

async fn replay_where(
    url: &str,
    publisher: &Publisher,
    options: &ReplayOptions,
    wanted: impl FnMut(&DeadLetter) -> bool,
) -> ReplaySummary {
    let urls = BrokerUrls::parse(url).unwrap();
    let owe = async |_| Owing::Failed("nobody owes here".to_owned());
    let ran = replay(
        &urls,
        "test-replay",
        publisher,
        options,
        || 42,
        wanted,
        owe,
        |_, _| {},
    );
    ran.await.unwrap()
}

#[tokio::test]
async fn listing_shows_every_letter_in_order_and_takes_none() {
    let (node, vhost, url) = fresh().await;
    bury(&publisher(&url).await, 30).await;
    for _ in 0..2 {
        let (listed, letters) = letters(&url, 100).await;
        assert_eq!(listed, Listed { ready: 30, seen: 30 });
        let bodies: Vec<&[u8]> = letters.iter().map(|letter| &letter.envelope.body[..]).collect();
        let expected: Vec<String> = (0..30).map(|number| number.to_string()).collect();
        assert_eq!(bodies, expected.iter().map(String::as_bytes).collect::<Vec<_>>());
        settle_at(node, &vhost, DEAD, 30, 0).await;
    }
}

#[tokio::test]
async fn a_letter_of_ours_tells_reason_stage_detail_and_time() {
    let (_node, _vhost, url) = fresh().await;
    bury(&publisher(&url).await, 1).await;
    let (_, letters) = letters(&url, 1).await;
    let letter = &letters[0];
    assert_eq!(
        (letter.reason.as_str(), letter.stage.as_deref()),
        ("not_json", Some("parse"))
    );
    assert_eq!(letter.detail.as_deref(), Some("the body is not JSON"));
    assert_eq!(
        (letter.dead_at_ms, letter.origin),
        (Some(1_771_025_567_000), Origin::Event)
    );
    assert!(letter.deaths.is_empty());
}

#[tokio::test]
async fn without_a_queue_the_error_says_so() {
    let (_node, _vhost, url) = fresh().await;
    let urls = BrokerUrls::parse(&url).unwrap();
    let error = list(&urls, "test-dead", 1, |_| ControlFlow::Continue(()))
        .await
        .unwrap_err();
    assert!(matches!(error, DeadLetterError::NoQueue), "{error:?}");
}

#[tokio::test]
async fn an_event_dead_by_its_delivery_limit_is_replayed_without_its_record_of_deaths() {
    let (node, vhost, url) = fresh().await;
    let publisher = publisher(&url).await;
    publish(&publisher, event("victim")).await.unwrap();
    let (_connection, channel) = plain(&url).await;
    exhaust(&channel, EVENTS).await;
    settle_at(node, &vhost, DEAD, 1, 0).await;
    let (_, letters) = letters(&url, 10).await;
    let letter = &letters[0];
    assert_eq!(
        (letter.reason.as_str(), letter.origin),
        ("delivery_limit", Origin::Event)
    );
    assert_eq!(
        (letter.deaths[0].queue.as_str(), letter.deaths[0].count),
        (EVENTS, 1)
    );
    assert!(letter.dead_at_ms.is_some());

    let summary = replay_where(&url, &publisher, &ReplayOptions::default(), |_| true).await;
    assert_eq!((summary.seen, summary.replayed), (1, 1));
    settle_at(node, &vhost, DEAD, 0, 0).await;
    let back = take(&channel, EVENTS).await;
    assert_eq!(back.data, b"victim");
    assert_eq!(
        back.properties.message_id().as_ref().unwrap().as_str(),
        envelope("victim").message_id
    );
    let headers = back.properties.headers().as_ref().unwrap().inner();
    let former: Vec<_> = headers
        .keys()
        .filter(|name| name.as_str().contains("death"))
        .collect();
    assert!(former.is_empty(), "{former:?}");
    assert_eq!(headers[header::REPLAY].as_long_long_int(), Some(1));
    assert_eq!(headers[header::REPLAYED_AT].as_long_long_int(), Some(42));
}

#[tokio::test]
async fn a_replay_takes_what_is_wanted_and_leaves_the_rest() {
    let (node, vhost, url) = fresh().await;
    let publisher = publisher(&url).await;
    bury(&publisher, 50).await;
    let wanted = |letter: &DeadLetter| letter.envelope.body.ends_with(b"3");
    let summary = replay_where(&url, &publisher, &ReplayOptions::default(), wanted).await;
    assert_eq!(
        (summary.ready, summary.seen, summary.replayed, summary.unwanted),
        (50, 50, 5, 45)
    );
    settle_at(node, &vhost, DEAD, 45, 0).await;
    settle_at(node, &vhost, EVENTS, 5, 0).await;
}

#[tokio::test]
async fn a_letter_replayed_three_times_is_refused_unless_forced() {
    let (node, vhost, url) = fresh().await;
    let publisher = publisher(&url).await;
    let often = Envelope {
        replay: 3,
        ..envelope("again")
    };
    publish(&publisher, Outgoing::dead(&often, NOTE)).await.unwrap();
    let summary = replay_where(&url, &publisher, &ReplayOptions::default(), |_| true).await;
    assert_eq!((summary.refused, summary.replayed), (1, 0));
    settle_at(node, &vhost, DEAD, 1, 0).await;
    let forced = ReplayOptions {
        force: true,
        ..ReplayOptions::default()
    };
    assert_eq!(
        replay_where(&url, &publisher, &forced, |_| true).await.replayed,
        1
    );
    settle_at(node, &vhost, EVENTS, 1, 0).await;
}

#[tokio::test]
async fn commands_go_back_to_the_commands_exchange_under_their_key() {
    let (node, vhost, url) = fresh().await;
    let publisher = publisher(&url).await;
    let json = Bytes::from_static(b"{}");
    publish(
        &publisher,
        Outgoing::command("by-limit", "pause", "snapshot", json.clone(), 0),
    )
    .await
    .unwrap();
    let (_connection, channel) = plain(&url).await;
    exhaust(&channel, COMMANDS).await;
    settle_at(node, &vhost, DEAD, 1, 0).await;
    let is_command = |letter: &DeadLetter| letter.origin == Origin::Command;
    let summary = replay_where(&url, &publisher, &ReplayOptions::default(), is_command).await;
    assert_eq!(summary.replayed, 1);
    let command = take(&channel, COMMANDS).await;
    assert_eq!(
        (
            command.properties.message_id().as_ref().unwrap().as_str(),
            command.routing_key.as_str()
        ),
        ("by-limit", "pause.snapshot")
    );
}

#[tokio::test]
async fn a_command_that_no_receiver_took_is_not_published_but_owed() {
    let (node, vhost, url) = fresh().await;
    let publisher = publisher(&url).await;
    for id in ["owed", "overtaken", "failing"] {
        let outgoing = Outgoing::dead_command(id, "resume", "clip", Bytes::from_static(b"{}"), NOTE);
        publish(&publisher, outgoing).await.unwrap();
    }
    let urls = BrokerUrls::parse(&url).unwrap();
    let owe = async |letter: DeadLetter| match letter.envelope.message_id.as_str() {
        "owed" => Owing::Owed,
        "overtaken" => Owing::Overtaken,
        _ => Owing::Failed("the ledger is away".to_owned()),
    };
    let options = ReplayOptions::default();
    let ran = replay(
        &urls,
        "test-replay",
        &publisher,
        &options,
        || 0,
        |_| true,
        owe,
        |_, _| {},
    );
    let summary = ran.await.unwrap();
    assert_eq!((summary.replayed, summary.overtaken), (1, 1));
    assert_eq!(
        summary.stopped_by,
        Some(StopReason::Owe("the ledger is away".to_owned()))
    );
    settle_at(node, &vhost, DEAD, 1, 0).await;
    settle_at(node, &vhost, COMMANDS, 0, 0).await;
}

#[tokio::test]
async fn a_letter_whose_copy_is_not_confirmed_stays() {
    let (node, vhost, url) = fresh().await;
    let publisher = publisher(&url).await;
    bury(&publisher, 3).await;
    node.unbind(&vhost, EVENTS, EVENTS).await.unwrap();
    node.delete_exchange(&vhost, UNROUTED).await.unwrap();
    let summary = replay_where(&url, &publisher, &ReplayOptions::default(), |_| true).await;
    assert_eq!(summary.replayed, 0);
    assert_eq!(
        summary.stopped_by,
        Some(StopReason::Copy(PublishError::Returned.to_string()))
    );
    settle_at(node, &vhost, DEAD, 3, 0).await;
}

#[tokio::test]
async fn a_replay_dropped_half_way_loses_nothing() {
    let (node, vhost, url) = fresh().await;
    let publisher = publisher(&url).await;
    bury(&publisher, 40).await;
    let urls = BrokerUrls::parse(&url).unwrap();
    let options = ReplayOptions {
        per_second_max: Some(50),
        ..ReplayOptions::default()
    };
    let (reached, half_way) = tokio::sync::oneshot::channel();
    let mut reached = Some(reached);
    let progress = |summary: &ReplaySummary, _: Option<&Settled>| {
        if summary.seen == 20 {
            let _ = reached.take().map(|reached| reached.send(()));
        }
    };
    tokio::select! {
        _ = replay(&urls, "test-replay", &publisher, &options, || 0, |_| true, async |_| Owing::Owed, progress) => panic!("not dropped"),
        _ = half_way => {}
    }
    porchlight_testbed::wait_for(
        "every letter in one place or both",
        Duration::from_secs(40),
        async || {
            let (dead, events) = (
                node.queue(&vhost, DEAD).await.unwrap(),
                node.queue(&vhost, EVENTS).await.unwrap(),
            );
            if dead.unacked == 0 && dead.ready + events.ready >= 40 {
                Ok(())
            } else {
                Err(format!("{dead:?} {events:?}"))
            }
        },
    )
    .await
    .unwrap();
}
