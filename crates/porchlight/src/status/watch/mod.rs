//! `porchlight status --watch`: the status again and again, drawn in a terminal or as lines.
//!
//! A task of its own looks, so that keys are answered while a server is waited for. It goes on when a server goes away,
//! and shows it again when it is back.

mod board;
mod lines;
mod look;
mod paint;
mod queue_rows;
mod scrape;
mod screen;
mod view;

use std::io::IsTerminal as _;
use std::time::Duration;

use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use futures_util::StreamExt as _;
use porchlight_service::client::Target;
use porchlight_service::stop::Hangups;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use self::board::Board;
use self::look::{Look, Looker};
use self::screen::Screen;
use self::view::{Scene, draw};
use super::Asker;
use crate::clock::now_ms;
use crate::failure::Failure;
use crate::output::Output;

/// Shorter would be load without news.
pub(super) const INTERVAL_MIN: Duration = Duration::from_millis(200);
/// Longer would be no watching.
pub(super) const INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// How often ages are drawn anew although nothing was looked at.
const REDRAW: Duration = Duration::from_secs(1);

/// What to watch, and how often.
pub(super) struct Watch {
    pub(super) asker: Asker,
    pub(super) ingresses: Vec<Target>,
    pub(super) workers: Vec<Target>,
    pub(super) interval: Duration,
}

/// What a person wants of the one who looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Now,
    CountDead,
    Pause,
}

/// What a key means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Quit,
    Wish(Wish),
}

/// Watches until a key, a signal, or the end of whoever reads.
pub(super) async fn run(watch: Watch, output: Output, stop: CancellationToken) -> Result<(), Failure> {
    let is_drawn = !output.is_json() && is_terminal();
    let interval = watch.interval;
    let (wishes, wished) = mpsc::channel(4);
    let (looked, looks) = mpsc::channel(1);
    let looker = Looker::new(watch.asker, watch.ingresses, watch.workers);
    let looking = tokio::spawn(look_for_ever(looker, interval, wished, looked));
    let watched = if is_drawn {
        on_screen(looks, wishes, interval, &stop).await
    } else {
        as_lines(looks, output, &stop).await;
        drop(wishes);
        Ok(())
    };
    // It ends by itself, for nobody listens any more.
    let _ = tokio::time::timeout(Duration::from_secs(2), looking).await;
    watched
}

fn is_terminal() -> bool {
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    std::io::stdout().is_terminal() && !is_dumb
}

/// Looks until nobody listens.
async fn look_for_ever(
    mut looker: Looker,
    interval: Duration,
    mut wishes: mpsc::Receiver<Wish>,
    looks: mpsc::Sender<Look>,
) {
    let mut is_paused = false;
    let mut count_dead = false;
    let mut is_due = true;
    loop {
        if is_due {
            let look = tokio::select! {
                look = looker.look(std::mem::take(&mut count_dead)) => look,
                () = looks.closed() => break,
            };
            if looks.send(look).await.is_err() {
                break;
            }
        }
        let next = async {
            if is_paused {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(interval).await;
        };
        is_due = tokio::select! {
            () = next => true,
            () = looks.closed() => break,
            Some(wish) = wishes.recv() => {
                count_dead = wish == Wish::CountDead;
                is_paused ^= wish == Wish::Pause;
                wish != Wish::Pause || !is_paused
            }
        };
    }
    looker.close().await;
}

async fn as_lines(mut looks: mpsc::Receiver<Look>, output: Output, stop: &CancellationToken) {
    let mut board = Board::default();
    while let Some(Some(look)) = stop.run_until_cancelled(looks.recv()).await {
        board.take(look);
        let line = match &board.last {
            Some(look) if output.is_json() => Some(output.json_text(&look.status)),
            _ => lines::line(&board),
        };
        // Nobody else would end it when the reader has gone (`| head`).
        if line.is_some_and(|line| !output.line_of_many(line)) {
            return;
        }
    }
}

async fn on_screen(
    mut looks: mpsc::Receiver<Look>,
    wishes: mpsc::Sender<Wish>,
    interval_of_looks: Duration,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let mut hangups = Hangups::listen()
        .map_err(|error| Failure::failed("no signal can be listened for").because(&error))?;
    let mut screen = Screen::take()?;
    let mut events = EventStream::new();
    let mut ticks = interval(REDRAW);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut board = Board::default();
    let mut scene = Scene {
        now_ms: now_ms(),
        interval: interval_of_looks,
        is_paused: false,
        is_looking: true,
    };
    loop {
        scene.now_ms = now_ms();
        screen.draw(|frame| draw(frame, &board, &scene))?;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            // Unheard it would end the process, with the terminal as it is.
            () = hangups.next() => return Ok(()),
            _ = ticks.tick() => {}
            look = looks.recv() => match look {
                Some(look) => board.take(look),
                None => return Err(Failure::failed("the one who looks has ended")),
            },
            event = events.next() => match event {
                Some(Ok(event)) => match key(&event) {
                    Some(Key::Quit) => return Ok(()),
                    Some(Key::Wish(wish)) => {
                        if wish == Wish::Now {
                            screen.forget();
                        }
                        scene.is_paused ^= wish == Wish::Pause;
                        // One that finds no place is one of many.
                        let _ = wishes.try_send(wish);
                    }
                    None => {}
                },
                // Whoever had the terminal is gone.
                Some(Err(_)) | None => return Ok(()),
            },
        }
    }
}

fn key(event: &Event) -> Option<Key> {
    let Event::Key(KeyEvent {
        code,
        modifiers,
        kind: KeyEventKind::Press | KeyEventKind::Repeat,
        ..
    }) = event
    else {
        return None;
    };
    let is_control = modifiers.contains(KeyModifiers::CONTROL);
    match code {
        KeyCode::Char('c' | 'd') if is_control => Some(Key::Quit),
        // What redraws a screen that others have written on, in whatever runs in a terminal.
        KeyCode::Char('l') if is_control => Some(Key::Wish(Wish::Now)),
        _ if is_control => None,
        KeyCode::Char('q') | KeyCode::Esc => Some(Key::Quit),
        KeyCode::Char('p' | ' ') => Some(Key::Wish(Wish::Pause)),
        KeyCode::Char('r') => Some(Key::Wish(Wish::Now)),
        KeyCode::Char('d') => Some(Key::Wish(Wish::CountDead)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_end_it_pause_it_or_ask_for_a_look() {
        let pressed = |code, modifiers| key(&Event::Key(KeyEvent::new(code, modifiers)));
        let plain = |c| pressed(KeyCode::Char(c), KeyModifiers::NONE);
        assert_eq!(plain('q'), Some(Key::Quit));
        assert_eq!(pressed(KeyCode::Esc, KeyModifiers::NONE), Some(Key::Quit));
        assert_eq!(
            pressed(KeyCode::Char('c'), KeyModifiers::CONTROL),
            Some(Key::Quit)
        );
        assert_eq!(
            pressed(KeyCode::Char('l'), KeyModifiers::CONTROL),
            Some(Key::Wish(Wish::Now))
        );
        assert_eq!(plain('p'), Some(Key::Wish(Wish::Pause)));
        assert_eq!(plain('r'), Some(Key::Wish(Wish::Now)));
        assert_eq!(plain('d'), Some(Key::Wish(Wish::CountDead)));
        assert_eq!(
            (plain('x'), pressed(KeyCode::Char('p'), KeyModifiers::CONTROL)),
            (None, None)
        );
        assert_eq!(key(&Event::Resize(80, 24)), None);
    }
}
