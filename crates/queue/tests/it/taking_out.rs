//! Taking out: in order, until it is acked, and again when it was given back.

use porchlight_event::queue::{AckOutcome, QueueState, RetryTier};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::bench::{Bench, PATIENCE, event, last_tag, soon, take, texts};

pub(crate) async fn in_order(mut bench: Bench) {
    bench.accept_all(&["a", "b", "c"]).await;
    let mut source = bench.source();
    let batch = take(&mut source, 3).await;
    assert_eq!(texts(&batch), ["a", "b", "c"]);
    assert!(batch.deliveries.is_sorted_by(|a, b| a.tag < b.tag));
    let acked = source
        .handle()
        .ack_through(batch.incarnation, last_tag(&batch))
        .await;
    assert_eq!(acked, AckOutcome::Sent);
    bench.accept("d").await;
    assert_eq!(texts(&take(&mut source, 1).await), ["d"]);
    source.close().await;
    bench.settle_at("porchlight.events", 1).await;
}

pub(crate) async fn in_parts(mut bench: Bench) {
    bench.accept_all(&["a", "b", "c", "d"]).await;
    let mut source = bench.source();
    let batch = take(&mut source, 4).await;
    let handle = source.handle();
    let acked = handle
        .ack_through(batch.incarnation, batch.deliveries[1].tag)
        .await;
    assert_eq!(acked, AckOutcome::Sent);
    source.close().await;
    bench.settle_at("porchlight.events", 2).await;
    let mut again = bench.source();
    assert_eq!(texts(&take(&mut again, 2).await), ["c", "d"]);
}

pub(crate) async fn abandoned(mut bench: Bench) {
    bench.accept_all(&["a", "b"]).await;
    let mut source = bench.source();
    let handle = source.handle();
    let first = take(&mut source, 2).await;
    assert!(handle.is_live(first.incarnation));
    handle.abandon(first.incarnation);
    assert!(!handle.is_live(first.incarnation));
    timeout(PATIENCE, handle.ended(first.incarnation)).await.unwrap();
    let stale = handle.ack_through(first.incarnation, last_tag(&first)).await;
    assert_eq!(stale, AckOutcome::Stale);
    let second = take(&mut source, 2).await;
    assert_ne!(second.incarnation, first.incarnation);
    assert_eq!(texts(&second), ["a", "b"]);
    assert!(
        second
            .deliveries
            .iter()
            .all(|d| d.redelivered && d.delivery_count >= 1)
    );
    let stale = handle.ack_through(first.incarnation, last_tag(&second)).await;
    assert_eq!(stale, AckOutcome::Stale);
    handle.abandon(first.incarnation);
    assert!(handle.is_live(second.incarnation));
    let acked = handle.ack_through(second.incarnation, last_tag(&second)).await;
    assert_eq!(acked, AckOutcome::Sent);
    source.close().await;
    bench.settle_at("porchlight.events", 0).await;
}

pub(crate) async fn paused(mut bench: Bench) {
    bench.accept_all(&["a", "b"]).await;
    let mut source = bench.source();
    let handle = source.handle();
    let first = take(&mut source, 2).await;
    handle.pause();
    assert!(!handle.is_live(first.incarnation));
    let stale = handle.ack_through(first.incarnation, last_tag(&first)).await;
    assert_eq!(stale, AckOutcome::Stale);
    let mut state = source.state();
    let away = state.wait_for(|state| *state == QueueState::Paused);
    timeout(PATIENCE, away).await.unwrap().unwrap();
    bench.settle_at("porchlight.events", 2).await;
    handle.resume();
    assert_eq!(texts(&take(&mut source, 2).await), ["a", "b"]);
}

pub(crate) async fn begun_paused(mut bench: Bench) {
    bench.accept("a").await;
    let mut source = bench.source_with(true, CancellationToken::new());
    let mut state = source.state();
    let away = state.wait_for(|state| *state == QueueState::Paused);
    timeout(PATIENCE, away).await.unwrap().unwrap();
    bench.settle_at("porchlight.events", 1).await;
    source.handle().resume();
    let batch = take(&mut source, 1).await;
    assert_eq!(
        (
            batch.deliveries[0].delivery_count,
            batch.deliveries[0].redelivered
        ),
        (0, false)
    );
}

pub(crate) async fn dropped(bench: Bench) {
    bench.accept_all(&["a", "b"]).await;
    let mut first = bench.source();
    let batch = take(&mut first, 2).await;
    let handle = first.handle();
    drop(first);
    timeout(PATIENCE, handle.ended(batch.incarnation)).await.unwrap();
    let mut second = bench.source();
    assert_eq!(texts(&take(&mut second, 2).await), ["a", "b"]);
}

pub(crate) async fn stopped(mut bench: Bench) {
    bench.accept_all(&["a", "b", "c"]).await;
    let stop = CancellationToken::new();
    let mut source = bench.source_with(false, stop.clone());
    let first = take(&mut source, 1).await;
    stop.cancel();
    let mut seen = texts(&first);
    let mut last = last_tag(&first);
    while let Some(batch) = timeout(PATIENCE, source.next_batch(1)).await.unwrap() {
        assert_eq!(batch.incarnation, first.incarnation);
        seen.extend(texts(&batch));
        last = last_tag(&batch);
    }
    assert!(["a", "b", "c"].starts_with(&seen.iter().map(String::as_str).collect::<Vec<_>>()));
    let acked = source.handle().ack_through(first.incarnation, last).await;
    assert_eq!(acked, AckOutcome::Sent);
    let mut state = source.state();
    source.close().await;
    let gone = state.wait_for(|state| *state == QueueState::Stopped);
    timeout(PATIENCE, gone).await.unwrap().unwrap();
    bench.settle_at("porchlight.events", 3 - seen.len() as u64).await;
}

pub(crate) async fn depth(mut bench: Bench) {
    // SQLite brings back what was put off where somebody consumes, also while that one is paused.
    let mut source = bench.source_with(true, CancellationToken::new());
    bench.accept_all(&["a", "b", "c"]).await;
    bench.settle_at("porchlight.events", 3).await;
    bench
        .queue
        .put_off(&event("d"), RetryTier::TenMinutes, soon())
        .await
        .unwrap();
    bench
        .queue
        .bury(&event("e"), crate::dead_letters::NOTE, soon())
        .await
        .unwrap();
    bench.settle_at("porchlight.dead", 1).await;
    bench.settle_at("porchlight.events", 4).await;
    bench.settle_at("porchlight.retry", 0).await;
    source.handle().resume();
    let batch = take(&mut source, 4).await;
    bench.settle_at("porchlight.events", 0).await;
    source.handle().abandon(batch.incarnation);
    take(&mut source, 4).await;
}
