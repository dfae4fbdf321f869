//! What became of spans, counted.

use std::sync::LazyLock;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// The counts of this process.
pub(crate) static FIGURES: LazyLock<Figures> = LazyLock::new(Figures::new);

/// Why a span does not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// More ended than could be exported.
    QueueFull,
    /// The collector did not take it, in several tries.
    NotDelivered,
    /// The collector refused it for good.
    Rejected,
    /// It ended after the last export of the process, or that took too long.
    Stopped,
}

/// Counters, all there from the start.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(super) exported: Counter,
    dropped: Family<LossLabel, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LossLabel {
    reason: &'static str,
}

impl Loss {
    const ALL: [Self; 4] = [Self::QueueFull, Self::NotDelivered, Self::Rejected, Self::Stopped];

    fn label(self) -> LossLabel {
        let reason = match self {
            Self::QueueFull => "queue_full",
            Self::NotDelivered => "not_delivered",
            Self::Rejected => "rejected",
            Self::Stopped => "stopped",
        };
        LossLabel { reason }
    }
}

impl Figures {
    fn new() -> Self {
        let dropped = Family::<LossLabel, Counter>::default();
        for loss in Loss::ALL {
            drop(dropped.get_or_create(&loss.label()));
        }
        Self {
            exported: Counter::default(),
            dropped,
        }
    }

    /// Shows them, under the prefix that `registry` gives.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "spans_exported",
            "Spans that the collector of traces took",
            self.exported.clone(),
        );
        registry.register(
            "spans_dropped",
            "Spans that were made and will not arrive at the collector of traces, by reason",
            self.dropped.clone(),
        );
    }

    pub(super) fn lost(&self, loss: Loss, count: usize) {
        self.dropped.get_or_create(&loss.label()).inc_by(count as u64);
    }
}
