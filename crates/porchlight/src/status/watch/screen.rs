//! The terminal while the live view has it: taken whole, and given back however that ends.
//!
//! What is drawn on it is the view's. It asks the terminal nothing, so that none has to answer.

use std::io::stdout;

use crossterm::cursor::Show;
use crossterm::execute;
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, is_raw_mode_enabled,
};
use ratatui::backend::CrosstermBackend;
use ratatui::{DefaultTerminal, Frame, Terminal};

use crate::failure::Failure;

/// A terminal that is ours until this is dropped, or until anything panics.
pub(super) struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    /// Takes the terminal: its keys one by one, and its other screen.
    pub(super) fn take() -> Result<Self, Failure> {
        let refused = |error| Failure::usage("--watch cannot draw on this terminal").because(&error);
        give_back_before_a_panic_is_told();
        enable_raw_mode().map_err(refused)?;
        let entered = execute!(stdout(), EnterAlternateScreen);
        let terminal = entered.and_then(|()| Terminal::new(CrosstermBackend::new(stdout())));
        terminal.map(|terminal| Self { terminal }).map_err(|error| {
            give_back();
            refused(error)
        })
    }

    /// Draws what has changed.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame)) -> Result<(), Failure> {
        // A panic elsewhere has given it back: what came now would be among a person's own lines.
        if !is_taken() {
            return Err(Failure::failed("the terminal was given back"));
        }
        self.terminal
            .draw(draw)
            .map(drop)
            .map_err(|error| Failure::failed("the terminal").because(&error))
    }

    /// Draws everything the next time, for whoever sees that something else has written here.
    pub(super) fn forget(&mut self) {
        let whole = self.terminal.size();
        // What fails here fails in the next drawing, too.
        let _ = whole.and_then(|size| self.terminal.resize(size.into()));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn is_taken() -> bool {
    is_raw_mode_enabled().unwrap_or(true)
}

/// Once only: a second time would put the cursor back on what has been written since.
fn give_back() {
    if is_taken() {
        // A terminal that is gone needs nothing, and there is nobody to tell.
        let _ = disable_raw_mode();
        let _ = execute!(stdout(), LeaveAlternateScreen, Show);
    }
}

/// What a panic says would be lost with the other screen otherwise.
fn give_back_before_a_panic_is_told() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        give_back();
        tell(panic);
    }));
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::time::Duration;

    use porchlight_testbed::Terminal;
    use ratatui::widgets::Paragraph;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);
    /// Set for the process that draws, which is this test executable in a terminal.
    const DRAWS: &str = "DRAWS_AND_PANICS";

    #[test]
    fn a_drawing_that_panics() {
        let Some(place) = std::env::var_os(DRAWS) else {
            return;
        };
        let mut screen = Screen::take().unwrap();
        screen
            .draw(|frame| frame.render_widget(Paragraph::new("all is well"), frame.area()))
            .unwrap();
        // A key is waited for, so that the test sees it drawn.
        crossterm::event::read().unwrap();
        if place == "elsewhere" {
            let elsewhere = std::thread::spawn(|| panic!("the ink has run out"));
            elsewhere.join().unwrap_err();
            let drawn = screen.draw(|frame| frame.render_widget(Paragraph::new("too late"), frame.area()));
            assert!(drawn.is_err());
        } else {
            let _ = screen.draw(|_| panic!("the ink has run out"));
        }
    }

    async fn ended_after_a_panic(place: &str) -> (i32, String) {
        let this = std::env::current_exe().unwrap();
        let name = concat!(module_path!(), "::a_drawing_that_panics");
        let name = name.split_once("::").unwrap().1;
        let arguments = ["--exact", name, "--nocapture"];
        // Of the terminal in which it draws it may have changed them by the time that they are looked at.
        let untouched = Terminal::start("true", &[], &[], (80, 24)).unwrap();
        assert_eq!(untouched.ended(PATIENCE).await.unwrap(), 0);
        let before = untouched.modes();
        let terminal = Terminal::start(this, &arguments, &[(DRAWS, place)], (80, 24)).unwrap();
        terminal.shows(&["all is well"], PATIENCE).await.unwrap();
        assert!(terminal.is_alternate() && !terminal.shows_cursor());
        assert_ne!(terminal.modes(), before);
        terminal.press("x");
        let code = terminal.ended(PATIENCE).await.unwrap();
        assert!(!terminal.is_alternate() && terminal.shows_cursor());
        assert_eq!(terminal.modes(), before);
        (code, terminal.text())
    }

    #[tokio::test]
    async fn a_panic_while_drawing_gives_the_terminal_back_and_is_read_there() {
        let (code, text) = ended_after_a_panic("drawing").await;
        assert!(
            text.contains("the ink has run out") && !text.contains("all is well"),
            "{text}"
        );
        assert_ne!(code, 0, "{text}");
    }

    #[tokio::test]
    async fn after_a_panic_elsewhere_nothing_is_drawn_among_a_persons_own_lines() {
        let (code, text) = ended_after_a_panic("elsewhere").await;
        assert!(
            text.contains("the ink has run out") && !text.contains("too late"),
            "{text}"
        );
        assert_eq!(code, 0, "{text}");
    }
}
