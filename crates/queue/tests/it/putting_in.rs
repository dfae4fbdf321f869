//! Putting in: what went in comes out, and what is refused is told.

use std::time::Instant;

use bytes::Bytes;
use porchlight_event::Envelope;
use porchlight_event::queue::{QueueState, RetryTier};
use porchlight_queue::QueueError;

use crate::bench::{Bench, PATIENCE, TIERS, event, last_tag, soon, take, texts};

pub(crate) async fn every_field(bench: Bench) {
    let odd: Vec<u8> = (0..=255).chain([0, 0xff, 0xfe, b'\n']).collect();
    let full = Envelope {
        received_at_ms: Some(1_771_025_567_123),
        key_name: Some("main \u{1f511}".to_owned()),
        signature: Some("sha256=feed".to_owned()),
        content_type: Some("application/json; note=\"\u{e9}\"".to_owned()),
        content_encoding: Some("gzip".to_owned()),
        traceparent: Some("00-ab-cd-01".to_owned()),
        attempt: 3,
        replay: 2,
        message_id: "an id of its own".to_owned(),
        body: Bytes::from(odd),
    };
    let empty = Envelope {
        received_at_ms: Some(0),
        key_name: Some(String::new()),
        signature: Some(String::new()),
        content_type: Some(String::new()),
        content_encoding: Some(String::new()),
        traceparent: Some(String::new()),
        ..Envelope::bare(Bytes::new())
    };
    let large = Envelope::bare(Bytes::from(vec![0xA5; 1 << 20]));
    let all = [full, empty, large, event("bare")];
    for envelope in &all {
        bench.queue.accept(envelope, soon()).await.unwrap();
    }
    let mut source = bench.source();
    let batch = take(&mut source, all.len()).await;
    for (delivery, envelope) in batch.deliveries.iter().zip(&all) {
        assert!(
            delivery.envelope == *envelope,
            "{:?} {envelope:?}",
            delivery.envelope
        );
        assert!(delivery.envelope.content_type == envelope.content_type);
        assert_eq!((delivery.delivery_count, delivery.redelivered), (0, false));
    }
}

pub(crate) async fn many_at_once(mut bench: Bench) {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..200 {
        let queue = bench.queue.clone();
        tasks.spawn(async move { queue.accept(&event(&number.to_string()), soon()).await });
    }
    while let Some(stored) = tasks.join_next().await {
        stored.unwrap().unwrap();
    }
    assert_eq!(bench.queue.stats().inflight, 0);
    bench.settle_at("porchlight.events", 200).await;
    let mut source = bench.source();
    let mut seen = texts(&take(&mut source, 200).await);
    seen.sort_by_key(|text| text.parse::<u32>().unwrap());
    let wanted: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    assert_eq!(seen, wanted);
}

pub(crate) async fn put_off(mut bench: Bench) {
    // Before the others, so that none of them can be back first.
    bench.accept("at once").await;
    let began = Instant::now();
    let (long, short) = (
        Envelope {
            attempt: 2,
            ..event("long")
        },
        Envelope {
            attempt: 1,
            ..event("short")
        },
    );
    bench
        .queue
        .put_off(&long, RetryTier::TenMinutes, soon())
        .await
        .unwrap();
    bench
        .queue
        .put_off(&short, RetryTier::OneMinute, soon())
        .await
        .unwrap();
    let mut source = bench.source();
    let mut seen = take(&mut source, 1).await;
    assert_eq!(texts(&seen), ["at once"]);
    seen.deliveries.extend(take(&mut source, 1).await.deliveries);
    assert!(began.elapsed() >= TIERS[0], "{:?}", began.elapsed());
    seen.deliveries.extend(take(&mut source, 1).await.deliveries);
    assert!(began.elapsed() >= TIERS[1], "{:?}", began.elapsed());
    assert!(seen.deliveries[1].envelope == short && seen.deliveries[2].envelope == long);
    source
        .handle()
        .ack_through(seen.incarnation, last_tag(&seen))
        .await;
    bench.settle_at("porchlight.retry", 0).await;
}

pub(crate) async fn closed(bench: Bench) {
    bench.accept("before").await;
    assert!(bench.queue.state().borrow().is_ready());
    bench.queue.close(PATIENCE).await;
    let refused = bench.queue.accept(&event("after"), soon()).await;
    assert!(matches!(refused, Err(QueueError::Stopping)), "{refused:?}");
    let mut state = bench.queue.state();
    let stopped = state.wait_for(|state| *state == QueueState::Stopped);
    tokio::time::timeout(PATIENCE, stopped).await.unwrap().unwrap();
}
