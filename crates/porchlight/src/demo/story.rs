//! The story that the demo tells: who is in it, what is sent when, and what must become of each thing.
//!
//! Nothing is sent here. The times are seconds before the demo's start, so that the story reads the same each time.

use porchlight_device::operation::State;
use porchlight_device::{Action, Outcome, Reason, Status};
use porchlight_event::sample::Sample;

use super::facts::EndFacts;

/// How ids of Ring's begin; the rest is opaque, and here it is a name that reads well.
const DEVICE_PREFIX: &str = "ava1.ring.device.";
const ACCOUNT_PREFIX: &str = "ava1.ring.account.";
/// From what happens to when Ring sends it.
const SENDING_MS: i64 = 40;

/// One stretch of the story, about one device or none.
#[derive(Debug)]
pub(super) struct Scene {
    /// What it is about, in a word.
    pub(super) name: &'static str,
    /// What happens, for a person.
    pub(super) title: &'static str,
    /// The device, where there is one; it has the scene's name.
    pub(super) actor: Option<Actor>,
    pub(super) steps: Vec<Step>,
}

/// A device with the one operation that is registered on it before anything happens.
#[derive(Debug)]
pub(super) struct Actor {
    account: &'static str,
    pub(super) operation: &'static str,
    pub(super) kind: &'static str,
    /// How it must stand at the end of its scene.
    pub(super) end: Standing,
}

/// How a device and its operation stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) status: Status,
    pub(super) operation: State,
    pub(super) generation: u64,
}

/// One thing that happens.
#[derive(Debug)]
pub(super) enum Step {
    /// A request is sent.
    Send(Send),
    /// The receiver of commands will refuse the next one once.
    BusyReceiver,
    /// The process is stopped, and started again on the same directory.
    Restart,
}

/// One request, and what must become of it.
#[derive(Debug)]
pub(super) struct Send {
    pub(super) what: What,
    /// Seconds before the demo's start; negative ones are in the future.
    pub(super) ago_s: i64,
    pub(super) fate: Fate,
    /// The commands that it must lead to, in order.
    pub(super) commands: Vec<(Action, u64)>,
}

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// An event of this type, rightly signed.
    Event(&'static str),
    /// The same, byte for byte, as the request before.
    Again,
    /// An event of this type, signed with a key that is not Ring's.
    Forged(&'static str),
    /// Something else than an event, rightly signed.
    NotJson,
}

/// What must become of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is refused with 401 and never stored.
    NotStored,
    /// It is stored, and the ledger decides so.
    Became(Outcome, Reason),
    /// It is stored and tried again later.
    Waits,
    /// It is stored and ends among the dead letters, with this reason.
    Dead(&'static str),
}

impl Actor {
    /// How it must stand at the end, as facts are written.
    pub(super) fn end_facts(&self) -> EndFacts {
        EndFacts {
            status: self.end.status.code().to_owned(),
            operation: self.operation.to_owned(),
            state: self.end.operation.code().to_owned(),
            generation: self.end.generation,
        }
    }
}

impl Scene {
    /// The device's id.
    pub(super) fn device_id(&self) -> String {
        format!("{DEVICE_PREFIX}{}", self.name)
    }

    /// The account's id.
    pub(super) fn account_id(&self) -> String {
        let account = self.actor.as_ref().map_or("stranger", |actor| actor.account);
        format!("{ACCOUNT_PREFIX}{account}")
    }

    /// The body of the step with this number, as Ring would send it. Empty where a step sends nothing.
    pub(super) fn body(&self, step: usize, start_ms: i64) -> Vec<u8> {
        let Some(Step::Send(send)) = self.steps.get(step) else {
            return Vec::new();
        };
        match send.what {
            What::Event(kind) | What::Forged(kind) => self.event(kind, step, send.ago_s, start_ms),
            What::NotJson => b"<html>not an event</html>".to_vec(),
            What::Again => {
                let before = self.steps[..step].iter().rposition(is_an_original);
                before.map_or_else(Vec::new, |before| self.body(before, start_ms))
            }
        }
    }

    /// What marks the event of a step in a device's history.
    pub(super) fn request_id(&self, step: usize) -> String {
        format!("demo-{}-{step}", self.name)
    }

    fn event(&self, kind: &str, step: usize, ago_s: i64, start_ms: i64) -> Vec<u8> {
        let timestamp_ms = start_ms - ago_s * 1_000;
        let sample = Sample {
            event_type: kind,
            device_id: &self.device_id(),
            account_id: &self.account_id(),
            timestamp_ms,
            sent_at_ms: timestamp_ms + SENDING_MS,
            request_id: &self.request_id(step),
        };
        sample.body()
    }
}

fn is_an_original(step: &Step) -> bool {
    matches!(step, Step::Send(send) if send.what != What::Again)
}

impl Send {
    /// The status that the answer must have.
    pub(super) fn status(&self) -> u16 {
        if self.fate == Fate::NotStored { 401 } else { 200 }
    }

    /// When it happened, as the story tells it: `-9:00` is nine minutes before the start.
    pub(super) fn when(&self) -> String {
        let sign = if self.ago_s < 0 { '+' } else { '-' };
        let seconds = self.ago_s.unsigned_abs();
        format!("{sign}{}:{:02}", seconds / 60, seconds % 60)
    }

    /// What it is, in a word or two.
    pub(super) fn label(&self) -> &'static str {
        match self.what {
            What::Event(kind) | What::Forged(kind) => kind,
            What::Again => "the same again",
            What::NotJson => "not JSON",
        }
    }
}

/// All of it, in the order of sending.
pub(super) fn scenes() -> Vec<Scene> {
    vec![
        front_door(),
        backyard(),
        driveway(),
        garage(),
        guest_house(),
        doorbell(),
        cellar(),
        strangers(),
    ]
}

const NEWEST: Fate = Fate::Became(Outcome::Applied, Reason::Newest);
const SEEN: Fate = Fate::Became(Outcome::Duplicate, Reason::Seen);

fn send(ago_s: i64, what: What, fate: Fate) -> Step {
    Step::Send(Send {
        what,
        ago_s,
        fate,
        commands: Vec::new(),
    })
}

fn event(ago_s: i64, kind: &'static str, fate: Fate) -> Step {
    send(ago_s, What::Event(kind), fate)
}

/// The newest news, which leads to one command.
fn turn(ago_s: i64, kind: &'static str, action: Action, generation: u64) -> Step {
    Step::Send(Send {
        what: What::Event(kind),
        ago_s,
        fate: NEWEST,
        commands: vec![(action, generation)],
    })
}

fn actor(operation: &'static str, kind: &'static str, end: (Status, State, u64)) -> Option<Actor> {
    let (status, state, generation) = end;
    Some(Actor {
        account: "home",
        operation,
        kind,
        end: Standing {
            status,
            operation: state,
            generation,
        },
    })
}

fn front_door() -> Scene {
    Scene {
        name: "front-door",
        title: "goes offline and comes back; Ring says so three times",
        actor: actor(
            "nightly-snapshot",
            "snapshot",
            (Status::Online, State::Running, 1),
        ),
        steps: vec![
            turn(540, "device_offline", Action::Pause, 1),
            turn(450, "device_online", Action::Resume, 1),
            send(450, What::Again, SEEN),
            send(450, What::Again, SEEN),
        ],
    }
}

fn backyard() -> Scene {
    let late = Fate::Became(Outcome::Stale, Reason::OlderThanKnown);
    Scene {
        name: "backyard",
        title: "an old offline arrives after the newer online",
        actor: actor("motion-clips", "recording", (Status::Online, State::Running, 0)),
        steps: vec![
            event(360, "device_online", NEWEST),
            event(400, "device_offline", late),
        ],
    }
}

fn driveway() -> Scene {
    Scene {
        name: "driveway",
        title: "flaps: off, on, off, on",
        actor: actor("plate-reader", "recording", (Status::Online, State::Running, 2)),
        steps: vec![
            turn(300, "device_offline", Action::Pause, 1),
            turn(290, "device_online", Action::Resume, 1),
            turn(280, "device_offline", Action::Pause, 2),
            turn(270, "device_online", Action::Resume, 2),
        ],
    }
}

fn garage() -> Scene {
    let gone = Fate::Became(Outcome::Refused, Reason::DeviceRemoved);
    Scene {
        name: "garage",
        title: "is removed from the account; later news of it is refused",
        actor: actor("door-timer", "timer", (Status::Removed, State::Cancelled, 0)),
        steps: vec![
            turn(240, "device_removed", Action::Cancel, 0),
            event(210, "device_online", gone),
        ],
    }
}

fn guest_house() -> Scene {
    let gone = Fate::Became(Outcome::Refused, Reason::AccountRemoved);
    let cast = actor("guest-log", "recording", (Status::Removed, State::Cancelled, 1));
    Scene {
        name: "guest-house",
        title: "is offline when its account takes the integration away",
        actor: cast.map(|actor| Actor {
            account: "guests",
            ..actor
        }),
        steps: vec![
            turn(190, "device_offline", Action::Pause, 1),
            turn(180, "app_integration_removed", Action::Cancel, 1),
            event(170, "device_online", gone),
        ],
    }
}

fn doorbell() -> Scene {
    let recorded = Fate::Became(Outcome::Recorded, Reason::NoEffect);
    Scene {
        name: "doorbell",
        title: "news that changes nothing, and news from the future",
        actor: actor("chime", "sound", (Status::Online, State::Running, 0)),
        steps: vec![
            event(150, "device_online", NEWEST),
            event(140, "button_press", recorded),
            event(130, "package_seen", recorded),
            event(-3_600, "device_offline", Fate::Waits),
        ],
    }
}

fn cellar() -> Scene {
    Scene {
        name: "cellar",
        title: "commands meet a busy receiver; then the process restarts",
        actor: actor("leak-watch", "sensor", (Status::Online, State::Running, 1)),
        steps: vec![
            Step::BusyReceiver,
            turn(90, "device_offline", Action::Pause, 1),
            Step::Restart,
            send(90, What::Again, SEEN),
            turn(45, "device_online", Action::Resume, 1),
        ],
    }
}

fn strangers() -> Scene {
    Scene {
        name: "strangers",
        title: "a forged request, and a body that is no event",
        actor: None,
        steps: vec![
            send(30, What::Forged("device_online"), Fate::NotStored),
            send(20, What::NotJson, Fate::Dead("not_json")),
        ],
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use porchlight_device::model::Ledger;
    use porchlight_device::{News, Registration};
    use porchlight_event::RingEvent;

    const START_MS: i64 = 1_771_025_567_000;

    /// What the reference ledger makes of one scene: the fate of each request, and its commands.
    fn told(scene: &Scene) -> Vec<(Fate, Vec<(Action, u64)>)> {
        let mut ledger = Ledger::default();
        let actor = scene.actor.as_ref().unwrap();
        let registration = Registration {
            operation_id: actor.operation.to_owned(),
            account_id: Some(scene.account_id()),
            kind: actor.kind.to_owned(),
            params: "null".to_owned(),
        };
        ledger
            .register(&scene.device_id(), &registration, START_MS)
            .unwrap();
        let mut told = Vec::new();
        for (number, step) in scene.steps.iter().enumerate() {
            let Step::Send(_) = step else { continue };
            let event = RingEvent::parse(&scene.body(number, START_MS)).unwrap();
            let news = News::new(&event, START_MS).unwrap();
            if news.is_from_the_future(START_MS) {
                told.push((Fate::Waits, Vec::new()));
                continue;
            }
            let decision = ledger.apply(&news, START_MS);
            let device = ledger.device(&scene.device_id());
            for command in &decision.commands {
                device.confirm(command);
            }
            let commands = decision
                .commands
                .iter()
                .map(|command| (command.action, command.generation))
                .collect();
            told.push((Fate::Became(decision.outcome, decision.reason), commands));
        }
        let device = ledger.device(&scene.device_id()).clone();
        let operation = &device.operations[actor.operation];
        let end = Standing {
            status: device.status,
            operation: operation.state,
            generation: operation.generation,
        };
        assert_eq!(end, actor.end, "{}", scene.name);
        told
    }

    #[test]
    fn the_story_expects_what_the_reference_ledger_does() {
        for scene in scenes().iter().filter(|scene| scene.actor.is_some()) {
            let expected: Vec<_> = scene
                .steps
                .iter()
                .filter_map(|step| match step {
                    Step::Send(send) => Some((send.fate, send.commands.clone())),
                    Step::BusyReceiver | Step::Restart => None,
                })
                .collect();
            assert_eq!(told(scene), expected, "{}", scene.name);
        }
    }

    #[test]
    fn a_request_that_is_sent_again_is_the_same_to_the_byte() {
        let scene = front_door();
        assert_eq!(scene.body(1, START_MS), scene.body(3, START_MS));
        assert_ne!(scene.body(0, START_MS), scene.body(1, START_MS));
        let scene = cellar();
        assert_eq!(scene.body(1, START_MS), scene.body(3, START_MS));
    }

    #[test]
    fn times_are_told_as_minutes_from_the_start() {
        let told = |ago_s| match event(ago_s, "x", NEWEST) {
            Step::Send(send) => send.when(),
            _ => String::new(),
        };
        assert_eq!([told(450), told(45), told(-3_600)], ["-7:30", "-0:45", "+60:00"]);
    }

    #[test]
    fn a_scene_fits_a_narrow_terminal() {
        for scene in scenes() {
            assert!(
                scene.name.len() <= 12 && 15 + scene.title.len() <= 80,
                "{}",
                scene.name
            );
        }
    }
}
