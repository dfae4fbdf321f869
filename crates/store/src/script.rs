//! The scripts, put together from their files, and one call of one of them.
//!
//! It does not send anything. A script's file opens with its keys, arguments, result and invariant.

use redis::Cmd;
use std::sync::LazyLock;

/// A script of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Script {
    ApplyEvent,
    ApplyAccount,
    AccountTouch,
    AccountChanged,
    SpreadDone,
    Register,
    Forget,
    Claim,
    Confirm,
    GiveUp,
    OweAgain,
    DeviceView,
    Shape,
    Probe,
    Restore,
    RestoreAccount,
    RestoreMarks,
    PredictEvent,
    PredictAccount,
    PredictChange,
    PredictOwing,
}

/// One command for the server, whose keys lie in one slot.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) cmd: Cmd,
}

const MARKS: &str = include_str!("marks.lua");
const ORDER: &str = include_str!("order.lua");
const DEVICE: &str = include_str!("device.lua");
const COUNT: &str = include_str!("count_actions.lua");
const DECIDE_EVENT: &str = include_str!("decide_event.lua");
const DECIDE_ACCOUNT: &str = include_str!("decide_account.lua");
const DECIDE_CHANGE: &str = include_str!("decide_change.lua");
const DECIDE_OWING: &str = include_str!("decide_owing.lua");

static LOADED: LazyLock<Vec<redis::Script>> = LazyLock::new(|| {
    Script::ALL
        .into_iter()
        .map(|script| redis::Script::new(&script.text()))
        .collect()
});

impl Script {
    const ALL: [Self; 21] = [
        Self::ApplyEvent,
        Self::ApplyAccount,
        Self::AccountTouch,
        Self::AccountChanged,
        Self::SpreadDone,
        Self::Register,
        Self::Forget,
        Self::Claim,
        Self::Confirm,
        Self::GiveUp,
        Self::OweAgain,
        Self::DeviceView,
        Self::Shape,
        Self::Probe,
        Self::Restore,
        Self::RestoreAccount,
        Self::RestoreMarks,
        Self::PredictEvent,
        Self::PredictAccount,
        Self::PredictChange,
        Self::PredictOwing,
    ];

    /// Preludes, and the script itself.
    fn parts(self) -> (&'static [&'static str], &'static str) {
        match self {
            Self::ApplyEvent => (
                &[MARKS, ORDER, DEVICE, DECIDE_EVENT],
                include_str!("apply_event.lua"),
            ),
            Self::ApplyAccount => (&[MARKS, ORDER, DECIDE_ACCOUNT], include_str!("apply_account.lua")),
            Self::AccountTouch => (&[], include_str!("account_touch.lua")),
            Self::AccountChanged => (
                &[ORDER, DEVICE, DECIDE_CHANGE],
                include_str!("account_changed.lua"),
            ),
            Self::SpreadDone => (&[], include_str!("spread_done.lua")),
            Self::Register => (&[ORDER, DEVICE], include_str!("register.lua")),
            Self::Forget => (&[ORDER], include_str!("forget.lua")),
            Self::Claim => (&[ORDER], include_str!("claim.lua")),
            Self::Confirm => (&[ORDER], include_str!("confirm.lua")),
            Self::GiveUp => (&[ORDER], include_str!("give_up.lua")),
            Self::OweAgain => (&[ORDER, DECIDE_OWING], include_str!("owe_again.lua")),
            Self::DeviceView => (&[], include_str!("device_view.lua")),
            Self::Shape => (&[], include_str!("shape.lua")),
            Self::Probe => (&[], include_str!("probe.lua")),
            Self::Restore => (&[ORDER, DEVICE], include_str!("restore.lua")),
            Self::RestoreAccount => (&[ORDER], include_str!("restore_account.lua")),
            Self::RestoreMarks => (&[], include_str!("restore_marks.lua")),
            Self::PredictEvent => (
                &[MARKS, ORDER, DEVICE, COUNT, DECIDE_EVENT],
                include_str!("predict_event.lua"),
            ),
            Self::PredictAccount => (
                &[MARKS, ORDER, DECIDE_ACCOUNT],
                include_str!("predict_account.lua"),
            ),
            Self::PredictChange => (
                &[ORDER, DEVICE, COUNT, DECIDE_CHANGE],
                include_str!("predict_change.lua"),
            ),
            Self::PredictOwing => (&[ORDER, DECIDE_OWING], include_str!("predict_owing.lua")),
        }
    }

    /// The whole text. Its first line is the script's own `#!lua`: it makes the server refuse the script whole, and
    /// not half-way, when memory is full.
    fn text(self) -> String {
        let (preludes, own) = self.parts();
        let (first, rest) = own.split_once('\n').unwrap_or((own, ""));
        let mut text = format!("{first}\n");
        for part in preludes {
            text.push_str(part.split_once('\n').map_or("", |(_, rest)| rest));
        }
        text + rest
    }

    fn hash(self) -> &'static str {
        LOADED[self as usize].get_hash()
    }

    /// The commands that load every script into a server.
    pub(crate) fn load_all() -> Vec<Call> {
        let load = |script: Script| {
            let mut cmd = redis::cmd("SCRIPT");
            cmd.arg("LOAD").arg(script.text());
            Call { cmd }
        };
        Self::ALL.into_iter().map(load).collect()
    }

    /// A call of this script; its arguments follow through [`Call::arg`].
    pub(crate) fn call<K: AsRef<str>>(self, keys: &[K]) -> Call {
        let tag = |key: &K| key.as_ref().split_once('}').map(|(tag, _)| tag.to_owned());
        debug_assert!(
            keys.windows(2).all(|pair| tag(&pair[0]) == tag(&pair[1])),
            "keys of one slot"
        );
        let mut cmd = Cmd::with_capacity(keys.len() + 24, 2048);
        cmd.arg("EVALSHA").arg(self.hash()).arg(keys.len());
        for key in keys {
            cmd.arg(key.as_ref());
        }
        Call { cmd }
    }
}

impl Call {
    /// A command that is no script.
    pub(crate) fn plain(name: &str) -> Self {
        Self {
            cmd: redis::cmd(name),
        }
    }

    pub(crate) fn arg(mut self, argument: impl redis::ToRedisArgs) -> Self {
        self.cmd.arg(argument);
        self
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn every_script_begins_with_its_own_first_line_and_has_no_other() {
        for script in Script::ALL {
            let text = script.text();
            assert!(text.starts_with("#!lua"), "{script:?}");
            assert_eq!(text.matches("#!lua").count(), 1, "{script:?}");
            assert!(text.lines().nth(1).unwrap().starts_with("--"), "{script:?}");
        }
    }

    #[test]
    fn the_scripts_that_predict_may_write_nothing_and_decide_as_their_twins_do() {
        for (predicts, applies) in [
            (Script::PredictEvent, Script::ApplyEvent),
            (Script::PredictAccount, Script::ApplyAccount),
            (Script::PredictChange, Script::AccountChanged),
            (Script::PredictOwing, Script::OweAgain),
        ] {
            assert!(
                predicts.text().starts_with("#!lua flags=no-writes\n"),
                "{predicts:?}"
            );
            let decides = applies.parts().0.last();
            assert_eq!(predicts.parts().0.last(), decides, "{predicts:?}");
        }
    }

    #[test]
    fn every_script_tells_its_keys_and_arguments() {
        for script in Script::ALL {
            let (_, own) = script.parts();
            assert!(
                own.contains("-- KEYS") && own.contains("-- ARGV") && own.contains("-- Gives"),
                "{script:?}"
            );
        }
    }
}
