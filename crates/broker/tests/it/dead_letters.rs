//! Dead letters: looking without taking, and replaying without losing.

use std::{ops::ControlFlow, time::Duration};

use bytes::Bytes;
use porchlight_broker::DeathNote;
use porchlight_broker::{
    BrokerUrls, DeadLetter, DeadLetterError, Origin, Outgoing, Publisher, Walk,
    dead_letter::{Listed, list},
    replay::copy_of,
    topology::{COMMANDS, DEAD},
    walk::{HELD_MAX, UNDECIDED_MAX},
};
use porchlight_event::{Envelope, envelope::header};
use tokio::time::timeout;

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

/// For the node: the queue of dead letters answers nobody for so long, and goes on by itself.
fn standing(vhost: &str, for_ms: u32) -> String {
    format!(
        "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"{vhost}\">>, queue, <<\"{DEAD}\">>)), \
         Queue = amqqueue:get_pid(Q), ok = sys:suspend(Queue), \
         {{ok, _}} = timer:apply_after({for_ms}, sys, resume, [Queue]), []"
    )
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

/// Publishes a copy of each letter that is wanted, and removes it when the copy is confirmed; how many that were.
async fn replay_where(url: &str, publisher: &Publisher, wanted: impl Fn(&DeadLetter) -> bool) -> usize {
    let urls = BrokerUrls::parse(url).unwrap();
    let mut walk = Walk::open(&urls, "test-replay").await.unwrap();
    let mut replayed = 0;
    while let Some(taken) = walk.next().await.unwrap() {
        if wanted(&taken.letter) {
            publish(publisher, copy_of(taken.letter, taken.remains, 42))
                .await
                .unwrap();
            walk.remove(taken.tag);
            replayed += 1;
        } else {
            walk.leave(taken.tag, &taken.letter);
        }
    }
    walk.finish().await.unwrap();
    replayed
}

/// Every letter's body, as a walk comes by them.
async fn walked(url: &str) -> Vec<String> {
    let (_, letters) = letters(url, usize::MAX).await;
    let text = |letter: DeadLetter| String::from_utf8(letter.envelope.body.to_vec()).unwrap();
    letters.into_iter().map(text).collect()
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
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

/// RabbitMQ answers the end of a channel before the queue has back what the channel held.
#[tokio::test]
async fn who_looks_right_after_a_walk_sees_every_letter() {
    const LETTERS: usize = 30;
    let (node, vhost, url) = fresh().await;
    bury(&publisher(&url).await, LETTERS).await;
    let urls = BrokerUrls::parse(&url).unwrap();
    // It stands until the walk has long been over, and goes on by itself.
    let slow = standing(&vhost, 300);
    for _ in 0..3 {
        let mut walk = Walk::open(&urls, "test-dead").await.unwrap();
        assert_eq!(walk.ready(), LETTERS);
        while let Some(taken) = walk.next().await.unwrap() {
            walk.leave(taken.tag, &taken.letter);
        }
        node.eval(&slow).await.unwrap();
        walk.close().await;
        let all = Listed {
            ready: LETTERS,
            seen: LETTERS,
        };
        assert_eq!(letters(&url, LETTERS).await.0, all);
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

    assert_eq!(replay_where(&url, &publisher, |_| true).await, 1);
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
async fn a_walk_over_many_comes_by_each_once_and_leaves_them_as_they_stood() {
    let (node, vhost, url) = fresh().await;
    bury(&publisher(&url).await, 1_234).await;
    settle_at(node, &vhost, DEAD, 1_234, 0).await;
    for _ in 0..2 {
        assert_eq!(walked(&url).await, numbers(0..1_234));
        settle_at(node, &vhost, DEAD, 1_234, 0).await;
    }
}

#[tokio::test]
async fn a_walk_holds_no_more_than_a_hundred_letters_of_many() {
    let (node, vhost, url) = fresh().await;
    bury(&publisher(&url).await, 500).await;
    let mut walk = Walk::open(&BrokerUrls::parse(&url).unwrap(), "test-dead")
        .await
        .unwrap();
    for _ in 0..400 {
        let taken = walk.next().await.unwrap().unwrap();
        walk.leave(taken.tag, &taken.letter);
    }
    let look = async || match node.queue(&vhost, DEAD).await.unwrap() {
        queue if queue.unacked <= 100 && queue.ready + queue.unacked == 500 => Ok(()),
        queue => Err(format!("{queue:?}")),
    };
    porchlight_testbed::wait_for("a hundred held", Duration::from_secs(20), look)
        .await
        .unwrap();
    walk.close().await;
    settle_at(node, &vhost, DEAD, 500, 0).await;
}

#[tokio::test]
async fn a_walk_that_is_dropped_half_way_loses_nothing() {
    let (node, vhost, url) = fresh().await;
    bury(&publisher(&url).await, 300).await;
    let mut walk = Walk::open(&BrokerUrls::parse(&url).unwrap(), "test-dead")
        .await
        .unwrap();
    for number in 0..200 {
        let taken = walk.next().await.unwrap().unwrap();
        if number % 10 != 0 {
            walk.leave(taken.tag, &taken.letter);
        }
    }
    drop(walk);
    settle_at(node, &vhost, DEAD, 300, 0).await;
    let mut all = walked(&url).await;
    all.sort_by_key(|text| text.parse::<usize>().unwrap());
    assert_eq!(all, numbers(0..300));
}

#[tokio::test]
async fn a_walk_ends_early_at_no_twin_that_an_earlier_one_has_given_back() {
    let (node, vhost, url) = fresh().await;
    let publisher = publisher(&url).await;
    for _ in 0..250 {
        publish(&publisher, Outgoing::dead(&envelope("twin"), NOTE))
            .await
            .unwrap();
    }
    bury(&publisher, 50).await;
    // A whole walk has the first hundred twice in hand, which count a return more from then on.
    assert_eq!(letters(&url, usize::MAX).await.0.seen, 300);
    settle_at(node, &vhost, DEAD, 300, 0).await;
    let mut walk = Walk::open(&BrokerUrls::parse(&url).unwrap(), "test-dead")
        .await
        .unwrap();
    for _ in 0..150 {
        let taken = walk.next().await.unwrap().unwrap();
        walk.leave(taken.tag, &taken.letter);
    }
    drop(walk);
    settle_at(node, &vhost, DEAD, 300, 0).await;
    let (listed, _) = letters(&url, usize::MAX).await;
    assert_eq!(
        listed,
        Listed {
            ready: 300,
            seen: 300
        }
    );
}

#[tokio::test]
async fn a_walk_does_not_come_to_what_dies_meanwhile() {
    let (node, vhost, url) = fresh().await;
    let publisher = publisher(&url).await;
    bury(&publisher, 250).await;
    let mut walk = Walk::open(&BrokerUrls::parse(&url).unwrap(), "test-dead")
        .await
        .unwrap();
    let mut seen = Vec::new();
    while let Some(taken) = walk.next().await.unwrap() {
        if seen.len().is_multiple_of(50) {
            publish(&publisher, Outgoing::dead(&envelope("late"), NOTE))
                .await
                .unwrap();
        }
        seen.push(taken.letter.envelope.body.clone());
        walk.leave(taken.tag, &taken.letter);
    }
    walk.close().await;
    assert!(
        seen.len() == 250 && seen.iter().all(|body| body != "late"),
        "{}",
        seen.len()
    );
    settle_at(node, &vhost, DEAD, 255, 0).await;
}

#[tokio::test]
async fn where_letters_come_again_at_once_they_are_held_and_each_is_seen_once() {
    let (node, vhost, url) = fresh().await;
    bury(&publisher(&url).await, 350).await;
    // What 4.x has unless it is told otherwise: a limit, and what is given back stands in front again.
    node.set_policy(
        &vhost,
        "limited",
        "^porchlight\\.dead$",
        r#"{"delivery-limit":20}"#,
    )
    .await
    .unwrap();
    for _ in 0..2 {
        let mut all = walked(&url).await;
        all.sort_by_key(|text| text.parse::<usize>().unwrap());
        assert_eq!(all, numbers(0..350));
        settle_at(node, &vhost, DEAD, 350, 0).await;
    }
    let (listed, _) = letters(&url, 100).await;
    assert!(listed.ready == 350 && listed.seen == 100 && HELD_MAX > 350);
}

#[tokio::test]
async fn of_two_walks_at_once_one_is_told_to_wait() {
    let (node, vhost, url) = fresh().await;
    bury(&publisher(&url).await, 3).await;
    let urls = BrokerUrls::parse(&url).unwrap();
    let first = Walk::open(&urls, "test-dead").await.unwrap();
    let second = Walk::open(&urls, "test-dead").await;
    assert!(matches!(second, Err(DeadLetterError::Busy)));
    first.close().await;
    Walk::open(&urls, "test-dead").await.unwrap().close().await;
    settle_at(node, &vhost, DEAD, 3, 0).await;
}

#[tokio::test]
async fn a_replay_takes_what_is_wanted_and_leaves_the_rest() {
    let (node, vhost, url) = fresh().await;
    let publisher = publisher(&url).await;
    bury(&publisher, 300).await;
    let wanted = |letter: &DeadLetter| letter.envelope.body.ends_with(b"3");
    assert_eq!(replay_where(&url, &publisher, wanted).await, 30);
    settle_at(node, &vhost, DEAD, 270, 0).await;
    settle_at(node, &vhost, EVENTS, 30, 0).await;
    let rest = numbers(0..300).into_iter().filter(|text| !text.ends_with('3'));
    assert_eq!(walked(&url).await, rest.collect::<Vec<_>>());
}

/// More acks than RabbitMQ passes on to a queue that has not written them yet: the rest it keeps in the channel.
#[tokio::test]
async fn a_walk_is_finished_when_the_queue_has_every_ack() {
    let (node, vhost, url) = fresh().await;
    bury(&publisher(&url).await, 2 * UNDECIDED_MAX).await;
    let mut walk = Walk::open(&BrokerUrls::parse(&url).unwrap(), "test-dead")
        .await
        .unwrap();
    let mut done_with = Vec::new();
    while let Some(taken) = walk.next().await.unwrap() {
        if taken.tag % 2 == 0 {
            walk.leave(taken.tag, &taken.letter);
        } else {
            done_with.push(taken.tag);
        }
    }
    node.suspend_queue(&vhost, DEAD, true).await.unwrap();
    for tag in done_with {
        walk.remove(tag);
    }
    let mut finished = std::pin::pin!(walk.finish());
    assert!(timeout(Duration::from_secs(1), &mut finished).await.is_err());
    node.suspend_queue(&vhost, DEAD, false).await.unwrap();
    finished.await.unwrap();
    settle_at(node, &vhost, DEAD, UNDECIDED_MAX as u64, 0).await;
}

#[tokio::test]
async fn a_queue_that_does_not_answer_for_a_while_is_not_taken_for_an_empty_one() {
    let (node, vhost, url) = fresh().await;
    bury(&publisher(&url).await, 300).await;
    node.eval(&standing(&vhost, 1_500)).await.unwrap();
    let urls = BrokerUrls::parse(&url).unwrap();
    let mut walk = Walk::open(&urls, "test-dead").await.unwrap();
    assert_eq!(walk.ready(), 300);
    let mut seen = 0;
    while let Some(taken) = walk.next().await.unwrap() {
        walk.leave(taken.tag, &taken.letter);
        seen += 1;
        if seen == 60 {
            node.eval(&standing(&vhost, 3_000)).await.unwrap();
        }
    }
    walk.close().await;
    assert_eq!(seen, 300, "a walk ended when the queue did not answer");
}

#[tokio::test]
async fn a_walk_that_ends_after_its_first_removals_leaves_the_rest_in_order() {
    let (node, vhost, url) = fresh().await;
    bury(&publisher(&url).await, 150).await;
    let mut walk = Walk::open(&BrokerUrls::parse(&url).unwrap(), "test-dead")
        .await
        .unwrap();
    for _ in 0..20 {
        let taken = walk.next().await.unwrap().unwrap();
        walk.remove(taken.tag);
    }
    walk.finish().await.unwrap();
    settle_at(node, &vhost, DEAD, 130, 0).await;
    assert_eq!(walked(&url).await, numbers(20..150));
}

#[tokio::test]
async fn a_walk_whose_queue_does_not_answer_is_not_finished() {
    let (node, vhost, url) = fresh().await;
    bury(&publisher(&url).await, 1).await;
    let mut walk = Walk::open(&BrokerUrls::parse(&url).unwrap(), "test-dead")
        .await
        .unwrap();
    let taken = walk.next().await.unwrap().unwrap();
    node.suspend_queue(&vhost, DEAD, true).await.unwrap();
    walk.remove(taken.tag);
    assert!(matches!(walk.finish().await, Err(DeadLetterError::Lost(_))));
    node.suspend_queue(&vhost, DEAD, false).await.unwrap();
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
    assert_eq!(replay_where(&url, &publisher, is_command).await, 1);
    let command = take(&channel, COMMANDS).await;
    assert_eq!(
        (
            command.properties.message_id().as_ref().unwrap().as_str(),
            command.routing_key.as_str()
        ),
        ("by-limit", "pause.snapshot")
    );
}
