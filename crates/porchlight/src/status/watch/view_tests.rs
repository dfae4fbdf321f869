//! What the view shows at 80 columns and 24 rows, drawn on a terminal in memory.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Instant;

use porchlight_ingress::outage::page::{OutageFacts, OutagesPage};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::status::ledger_part::LedgerState;
use crate::status::standalone::{Queue as FileQueue, StandaloneState};
use crate::status::watch::scrape::{Figures, Outage};
use crate::status::{Part, Pipeline, Status, scaled};

const NOW_MS: i64 = 1_771_025_567_000;

fn queue(name: &str, ready: u64, consumers: u32) -> scaled::Queue {
    scaled::Queue {
        name: format!("porchlight.{name}"),
        exists: true,
        ready,
        consumers,
        unacked: Some(7),
    }
}

fn ledger() -> LedgerState {
    LedgerState {
        commands_owed: 3,
        oldest_owed_seconds: Some(2),
        devices: BTreeMap::from([("online".to_owned(), 120), ("offline".to_owned(), 4)]),
        ..LedgerState::default()
    }
}

fn scaled(ready: u64) -> Pipeline {
    let queues = vec![
        queue("events", ready, 2),
        queue("retry.1m", 0, 0),
        queue("retry.10m", 0, 0),
        queue("dead", 0, 0),
        queue("unrouted", 0, 0),
        queue("commands", 1, 1),
    ];
    Pipeline {
        rabbitmq: Some(Part::new("amqp".to_owned(), Ok(queues))),
        redis: Some(Part::new("redis".to_owned(), Ok(ledger()))),
        standalone: None,
    }
}

fn look(pipeline: Pipeline, figures: Figures, seconds: u64) -> Look {
    Look {
        at: Instant::now() + Duration::from_secs(seconds),
        at_ms: NOW_MS + i64::try_from(seconds).unwrap() * 1000,
        queues: super::super::look::queues_of(&pipeline),
        dead: None,
        away: pipeline.away().collect(),
        status: Status::new(pipeline, Vec::new()),
        daemons: Vec::new(),
        figures,
    }
}

fn answers(ok: f64, away: f64) -> Figures {
    Figures {
        answers: BTreeMap::from([("200".to_owned(), ok), ("503".to_owned(), away)]),
        settled: BTreeMap::from([("applied".to_owned(), ok)]),
        oldest_waiting_seconds: Some(1.5),
        newest_applied_at: Some(1_771_025_560.0),
        ..Figures::default()
    }
}

fn drawn(board: &Board, scene: &Scene, (width, height): (u16, u16)) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, board, scene)).unwrap();
    let buffer = terminal.backend().buffer();
    let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(|y| row(y).trim_end().to_owned()).collect()
}

fn scene(seconds: i64) -> Scene {
    Scene {
        now_ms: NOW_MS + seconds * 1000,
        interval: Duration::from_secs(2),
        is_paused: false,
        is_looking: false,
    }
}

fn shown(looks: Vec<Look>, seconds: i64) -> Vec<String> {
    let mut board = Board::default();
    looks.into_iter().for_each(|look| board.take(look));
    drawn(&board, &scene(seconds), (80, 24))
}

fn has(rows: &[String], words: &[&str]) {
    for words in words {
        assert!(
            rows.iter().any(|row| row.contains(words)),
            "no {words:?} in\n{}",
            rows.join("\n")
        );
    }
}

#[test]
fn a_healthy_pipeline_fits_eighty_columns_with_rates_and_bars() {
    let looks = (0..12).map(|n| {
        let count = f64::from(u32::try_from(n).unwrap());
        look(scaled(100 * n), answers(1000.0 * count, 0.0), 2 * n)
    });
    let rows = shown(looks.collect(), 22);
    assert!(
        rows[0].starts_with("Porchlight  HEALTHY") && rows[0].contains("every 2s"),
        "{}",
        rows[0]
    );
    assert!(rows[23].contains("q quit"));
    let events = rows
        .iter()
        .find(|row| row.starts_with("porchlight.events"))
        .unwrap();
    assert!(
        events.contains("1100") && events.contains("+50.0/s") && events.contains('7'),
        "{events}"
    );
    assert!(events.ends_with('█') && events.contains('▁'), "{events}");
    has(
        &rows,
        &[
            "lag       oldest waits for 1s; newest is 29s old",
            "devices   4 offline, 120 online",
            "commands  3 owed, the oldest for 2s",
            "work       500.0/s  applied 11000",
            "answers   200   500.0/s  11000 so far",
            "dead      none",
        ],
    );
}

#[test]
fn what_is_away_is_named_and_the_rest_stays() {
    let mut pipeline = scaled(5);
    pipeline.rabbitmq = Some(Part::new("amqp".to_owned(), Err("connection refused".to_owned())));
    let rows = shown(
        vec![
            look(scaled(5), Figures::default(), 0),
            look(pipeline, Figures::default(), 2),
        ],
        2,
    );
    has(
        &rows,
        &[
            "CANNOT SEE RABBITMQ",
            "RabbitMQ does not answer: connection refused",
            "commands  3 owed",
            "lag       not known",
        ],
    );
}

#[test]
fn a_standalone_shows_its_own_queues_its_data_and_how_long_events_wait() {
    let state = StandaloneState {
        running: true,
        queues: vec![FileQueue {
            name: "porchlight.events".to_owned(),
            exists: true,
            ready: 3,
            in_hand: 2,
            consumers: 1,
            bytes: 10,
            oldest_seconds: Some(4),
        }],
        ledger: ledger(),
        file: FileState {
            bytes: 2 << 20,
            bytes_in_use: 1 << 20,
            bytes_max: 4 << 30,
            disk_free_bytes: Some(10 << 30),
        },
        ..StandaloneState::default()
    };
    let pipeline = Pipeline {
        standalone: Some(Part::new("dir".to_owned(), Ok(state))),
        ..Pipeline::default()
    };
    let rows = shown(vec![look(pipeline, Figures::default(), 0)], 0);
    has(
        &rows,
        &[
            "oldest waits for 4s",
            "data      1.0 MiB of at most 4.0 GiB; 10.0 GiB free on the disk",
        ],
    );
}

#[test]
fn an_outage_is_told_in_rings_terms_and_the_dead_by_reason() {
    let now = 1_771_025_567.0;
    let outage = |first_loss_at, forgotten_at| {
        let mut found = look(scaled(0), Figures::default(), 0);
        found.figures.key_breaker_open = true;
        found.figures.outage = Some(Outage {
            started_at: now - 600.0,
            first_loss_at,
            forgotten_at,
        });
        found.dead = Some(DeadReasons {
            ready: 2000,
            looked_at: 100,
            by_reason: BTreeMap::from([("no_device".to_owned(), 99), ("not\u{1b}json".to_owned(), 1)]),
            error: None,
        });
        shown(vec![found], 0)
    };
    has(
        &outage(now + 3756.0, now + 300_000.0),
        &[
            "OUTAGE    for 10m 0s; Ring gives up on the first events in 1h 2m",
            "KEY       no signature matches",
            "dead      99 no_device, 1 not\\u{1b}json; of the oldest 100",
        ],
    );
    has(
        &outage(now - 1.0, now + 7200.0),
        &["Ring has given up on events; it forgets them in 2h 0m"],
    );
    has(
        &outage(now - 9.0, now - 1.0),
        &["Ring has forgotten the first events"],
    );
}

#[test]
fn an_outage_that_waits_for_proof_that_it_is_over_frightens_nobody() {
    let mut found = look(scaled(0), Figures::default(), 0);
    found.figures.outage = Some(Outage {
        started_at: 1_771_025_557.0,
        first_loss_at: 1_771_029_913.0,
        forgotten_at: 1_771_289_113.0,
    });
    let facts = |recovered_at_ms| OutageFacts {
        recovered_at_ms,
        ..OutageFacts::default()
    };
    let page = |recovered_at_ms| OutagesPage {
        is_on: true,
        outages: vec![facts(recovered_at_ms), facts(None)],
        ..OutagesPage::default()
    };
    found.status.ingresses = vec![Ingress::telling(page(Some(NOW_MS - 4_000)))];
    let mut board = Board::default();
    board.take(found);
    let shown = |board: &Board| drawn(board, &scene(0), (80, 24));
    has(&shown(&board), &["OUTAGE    for 6s; answered again for 4s"]);
    let ingresses = &mut board.last.as_mut().unwrap().status.ingresses;
    ingresses.push(Ingress::telling(page(None)));
    has(&shown(&board), &["OUTAGE    for 10s; Ring gives up"]);
}

#[test]
fn where_it_is_narrow_or_low_what_counts_most_stays_and_no_figure_is_half_there() {
    let mut board = Board::default();
    board.take(look(scaled(1_234_567), Figures::default(), 0));
    let rows = drawn(&board, &scene(0), (20, 5));
    assert_eq!(
        rows,
        [
            "HEALTHY",
            "QUEUE          READY",
            "events       1234567",
            "retry.1m           0",
            " q quit   p pause"
        ]
    );
    let rows = drawn(&board, &scene(0), (60, 30));
    has(&rows, &["porchlight.events      1234567", "dead      none"]);
}

#[test]
fn attention_takes_the_room_that_is_left_and_no_size_is_too_small() {
    let mut found = look(scaled(0), Figures::default(), 0);
    found.status.attention = (0..30).map(|n| format!("trouble {n}")).collect();
    let mut board = Board::default();
    board.take(found);
    let rows = drawn(&board, &scene(0), (80, 24));
    has(&rows, &["NEEDS ATTENTION (30)", "  trouble 0", "more"]);
    assert!(
        rows[22].contains("and ") && rows[23].contains("q quit"),
        "{rows:?}"
    );
    for size in [(1, 1), (10, 3), (20, 8), (79, 12), (300, 100)] {
        drawn(&board, &scene(0), size);
        drawn(&Board::default(), &scene(0), size);
    }
}

#[test]
fn where_there_is_little_room_the_gravest_is_told_and_not_only_counted() {
    let mut found = look(scaled(0), Figures::default(), 0);
    found.status.attention = vec!["first".repeat(40), "second".to_owned()];
    let mut board = Board::default();
    board.take(found);
    let mut calm = Board::default();
    calm.take(look(scaled(0), Figures::default(), 0));
    let used = lines(&calm, &scene(0), 80, 24).len();
    for room in 2..5 {
        let rows = lines(&board, &scene(0), 80, used + room);
        assert!(rows.len() <= used + room, "{room}");
        let told = rows[used..]
            .iter()
            .any(|row| row.to_string().contains("firstfirst"));
        assert!(told, "{room}");
    }
}

#[test]
fn reasons_and_outcomes_that_never_came_take_no_room() {
    let figures = Figures {
        settled: BTreeMap::from([("applied".to_owned(), 4.0), ("buried".to_owned(), 0.0)]),
        died: BTreeMap::from([("future".to_owned(), 0.0), ("no_id".to_owned(), 2.0)]),
        ..Figures::default()
    };
    let mut pipeline = scaled(0);
    let queues = pipeline.rabbitmq.as_mut().unwrap().state.as_mut().unwrap();
    queues[3].ready = 2;
    let rows = shown(vec![look(pipeline, figures, 0)], 0);
    has(&rows, &["dead      since the workers began 2 no_id", "applied 4"]);
    assert!(!rows.join("").contains("future") && !rows.join("").contains("buried"));
}

#[test]
fn a_look_that_is_late_and_a_pause_are_told() {
    let mut board = Board::default();
    board.take(look(scaled(0), Figures::default(), 0));
    let title = |scene: Scene| drawn(&board, &scene, (80, 24)).remove(0);
    assert!(
        title(Scene {
            is_looking: true,
            ..scene(9)
        })
        .contains("last look 9s ago, looking")
    );
    assert!(
        title(Scene {
            is_paused: true,
            ..scene(9)
        })
        .contains("paused at 23:32:47Z")
    );
}

#[test]
fn a_line_for_a_log_says_the_same_in_short() {
    let mut board = Board::default();
    board.take(look(scaled(0), answers(0.0, 0.0), 0));
    board.take(look(scaled(12), answers(20.0, 4.0), 2));
    let line = super::super::lines::line(&board).unwrap();
    for words in [
        "2026-02-13T23:32:49.000Z",
        "healthy",
        "events 12",
        "lag 1s",
        "3 owed for 2s",
        "200 10.0/s",
        "503 2.0/s",
    ] {
        assert!(line.contains(words), "{words}: {line}");
    }
}
