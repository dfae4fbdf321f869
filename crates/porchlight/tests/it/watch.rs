//! `status --watch`: a line for each look where nobody looks at a terminal, and in a terminal taking and giving it back.
//!
//! What is drawn where is tested beside the view.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use porchlight_testbed::{RabbitMq, Redis, Signal, Terminal, wait_for};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::site::{Form, PATIENCE, Site};
use crate::tool::command;

/// Lines that wait for the test; the watch waits for its reader then, as it would for any.
const LINES_MAX: usize = 64;

/// A watch that runs, and the lines that it says.
struct Watch {
    child: Child,
    said: mpsc::Receiver<String>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Watch {
    fn lines(site: &[(&'static str, String)], more: &[&str]) -> Self {
        let variables: Vec<_> = site.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let arguments = [&["status", "--watch", "--interval", "200ms"], more].concat();
        let mut child = command(&arguments, &variables)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (say, said) = mpsc::channel(LINES_MAX);
        std::thread::spawn(move || {
            stdout
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| say.blocking_send(line))
        });
        Self { child, said }
    }

    /// Waits until it has said something that fits; everything until then.
    async fn until(&mut self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let mut all = String::new();
        loop {
            match tokio::time::timeout_at(deadline, self.said.recv()).await {
                Ok(Some(said)) => {
                    all.push_str(&said);
                    if fits(&said) || fits(&all) {
                        return all;
                    }
                }
                other => panic!("no {what}: {other:?}\n{all}"),
            }
        }
    }

    async fn ended(mut self) -> i32 {
        let look = async || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status.code().unwrap_or(-1)),
            other => Err(format!("{other:?}")),
        };
        wait_for("its end", PATIENCE, look).await.unwrap()
    }
}

#[tokio::test]
async fn without_a_terminal_each_look_is_a_line_and_a_reader_that_leaves_ends_it() {
    for form in Form::ALL {
        let site = Site::start(form).await;
        site.apply("device_online", "d", 1_000).await;
        site.bury(1, "no_device", 0).await;
        let mut watch = Watch::lines(&site.variables, &[]);
        let line = watch.until("letter", |line| line.contains("dead 1")).await;
        assert!(
            line.contains("1 online") && line.contains("need"),
            "{form:?} {line}"
        );
        let next = watch.until("second line", |line| line.contains("dead 1")).await;
        assert_ne!(line, next, "{form:?}");
        watch.said.close();
        while watch.said.recv().await.is_some() {}
        assert_eq!(watch.ended().await, 0, "{form:?}");
    }
}

#[tokio::test]
async fn with_json_each_look_is_a_document_on_one_line() {
    let site = Site::start(Form::Directory).await;
    let mut watch = Watch::lines(&site.variables, &["--json"]);
    let line = watch.until("line", |line| line.ends_with('}')).await;
    let look: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(look["standalone"]["state"]["running"], false, "{look}");
    assert!(
        look["attention"][0]
            .as_str()
            .unwrap()
            .contains("no standalone runs"),
        "{look}"
    );
}

#[tokio::test]
async fn a_server_that_goes_away_and_comes_back_is_told_and_nothing_ends() {
    let node = RabbitMq::shared().await;
    let redis = Redis::start().await.unwrap();
    let amqp = node.url_for_vhost(&node.vhost().await.unwrap());
    let site = [
        ("PORCHLIGHT_AMQP_URL", amqp),
        ("PORCHLIGHT_REDIS_URL", redis.url()),
    ];
    let mut watch = Watch::lines(&site, &[]);
    watch.until("ledger", |line| line.contains("0 owed")).await;
    redis.kill();
    let line = watch
        .until("trouble", |line| line.contains("cannot see Redis"))
        .await;
    // The other server is still looked at.
    assert!(line.contains("events missing"), "{line}");
    redis.start_again().await.unwrap();
    watch
        .until("ledger again", |line| {
            !line.contains("cannot see") && line.contains("0 owed")
        })
        .await;
}

#[tokio::test]
async fn an_interval_beyond_its_bounds_is_refused() {
    let site = Site::start(Form::Directory).await;
    for wrong in ["1ms", "2h"] {
        let ran = site
            .run(&["status", "--watch", "--interval", wrong])
            .await
            .expect(64);
        assert!(ran.stderr.contains("--interval"), "{ran:?}");
    }
    site.run(&["status", "--interval", "5s"]).await.expect(64);
    site.run(&["status", "--watch", "--check"]).await.expect(64);
}

/// A terminal of eighty columns and twenty-four rows with a watch of this place in it.
fn terminal_at(site: &[(&'static str, String)]) -> Terminal {
    let variables: Vec<_> = site.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let arguments = ["status", "--watch", "--interval", "200ms"];
    Terminal::start(env!("CARGO_BIN_EXE_porchlight"), &arguments, &variables, (80, 24)).unwrap()
}

#[tokio::test]
async fn in_a_terminal_queues_are_drawn_with_their_rates_until_q() {
    let site = Site::start(Form::Scaled).await;
    site.bury(1, "no_device", 0).await;
    let terminal = terminal_at(&site.variables);
    let names = ["QUEUE ", "porchlight.events ", "porchlight.commands ", "q quit"];
    let text = terminal.shows(&names, PATIENCE).await.unwrap();
    assert!(terminal.is_alternate(), "{text}");
    site.bury(2, "no_device", 0).await;
    let growing = async || {
        let text = terminal.text();
        let mut rows = text.lines().filter(|row| row.starts_with("porchlight.dead "));
        let grows = rows.any(|row| row.contains(" 2 ") && row.contains('+') && row.contains("/s"));
        grows.then_some(()).ok_or(text)
    };
    wait_for("the dead to grow", PATIENCE, growing).await.unwrap();
    terminal.press("q");
    assert_eq!(terminal.ended(PATIENCE).await.unwrap(), 0);
}

/// Every mode of a terminal that nothing has changed: a program that draws may have begun before it is looked at.
async fn untouched_modes() -> String {
    let terminal = Terminal::start("true", &[], &[], (80, 24)).unwrap();
    assert_eq!(terminal.ended(PATIENCE).await.unwrap(), 0);
    terminal.modes()
}

#[tokio::test]
async fn each_end_gives_the_terminal_back_as_it_was() {
    type End = (&'static str, fn(&Terminal));
    let ends: [End; 6] = [
        ("q", |terminal| terminal.press("q")),
        ("escape", |terminal| terminal.press("\u{1b}")),
        ("Ctrl-C", |terminal| terminal.press("\u{3}")),
        ("SIGTERM", |terminal| terminal.signal(Signal::Terminate)),
        ("SIGINT", |terminal| terminal.signal(Signal::Interrupt)),
        ("SIGHUP", |terminal| terminal.signal(Signal::HangUp)),
    ];
    let site = Site::start(Form::Directory).await;
    let before = untouched_modes().await;
    for (name, end) in ends {
        let terminal = terminal_at(&site.variables);
        terminal
            .shows(&["porchlight.events ", "q quit"], PATIENCE)
            .await
            .unwrap();
        assert!(terminal.is_alternate() && !terminal.shows_cursor(), "{name}");
        assert_ne!(terminal.modes(), before, "{name}");
        end(&terminal);
        assert_eq!(terminal.ended(PATIENCE).await.unwrap(), 0, "{name}");
        assert!(!terminal.is_alternate() && terminal.shows_cursor(), "{name}");
        assert_eq!(terminal.modes(), before, "{name}");
        assert!(!terminal.text().contains("porchlight.events"), "{name}");
    }
}

#[tokio::test]
async fn another_size_is_drawn_at_once_and_none_is_too_small() {
    let site = Site::start(Form::Directory).await;
    let terminal = terminal_at(&site.variables);
    terminal
        .shows(&["porchlight.events ", "q quit"], PATIENCE)
        .await
        .unwrap();
    terminal.resize(20, 5);
    let gravest = ["NEEDS ATTENTION", "q quit"];
    let text = terminal.shows(&gravest, PATIENCE).await.unwrap();
    assert!(text.lines().count() <= 5, "{text}");
    terminal.resize(1, 1);
    terminal.resize(120, 40);
    terminal
        .shows(&["porchlight.events ", "needs attention", "q quit"], PATIENCE)
        .await
        .unwrap();
    terminal.press("q");
    assert_eq!(terminal.ended(PATIENCE).await.unwrap(), 0);
}

#[tokio::test]
async fn with_the_management_api_what_a_consumer_holds_is_shown_as_unacked() {
    let mut site = Site::start(Form::Scaled).await;
    site.bury(1, "no_device", 0).await;
    let node = RabbitMq::shared().await;
    let amqp = &site.variables[0].1;
    let vhost = amqp.rsplit('/').next().unwrap();
    // A connection that nobody closes, so that what it took stays with it.
    let hold = format!(
        "{{ok, C}} = amqp_connection:start({{amqp_params_direct, <<\"guest\">>, none, <<\"{vhost}\">>, node(), none, []}}), \
         {{ok, Ch}} = amqp_connection:open_channel(C), \
         {{_, _}} = amqp_channel:call(Ch, {{'basic.get', 0, <<\"porchlight.dead\">>, false}}), []"
    );
    node.eval(&hold).await.unwrap();
    let management = node.management_url().await.unwrap();
    site.variables.push(("PORCHLIGHT_MANAGEMENT_URL", management));
    let terminal = terminal_at(&site.variables);
    let held = async || {
        let text = terminal.text();
        let mut rows = text.lines().filter(|row| row.starts_with("porchlight.dead "));
        let is_held = rows.any(|row| row.split_whitespace().skip(1).step_by(2).take(2).eq(["0", "1"]));
        is_held.then_some(()).ok_or(text)
    };
    wait_for("one unacked", PATIENCE, held).await.unwrap();
}
