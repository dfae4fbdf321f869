//! The registry of metrics and its text form, with what every process has: build and resource figures.
//!
//! Each daemon owns the names of its own metrics and registers them here before it serves.

mod format;
mod runtime;

use prometheus_client::encoding::text;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

pub use format::Format;

use crate::process::ProcessCollector;
use runtime::RuntimeCollector;

/// Everything a process counts. Names begin with `porchlight_`, but for the usual `process_` ones.
#[derive(Debug)]
pub struct Metrics {
    root: Registry,
}

impl Metrics {
    /// A registry with build and process figures in it, and those of the runtime that this is called in. `role` is what
    /// the process is, such as `ingress`.
    pub fn new(version: &'static str, role: &'static str) -> Self {
        let mut root = Registry::default();
        root.register_collector(Box::new(ProcessCollector::new()));
        let build = Info::new([("version", version), ("role", role)]);
        root.sub_registry_with_prefix("porchlight")
            .register("build", "What is running", build);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            root.sub_registry_with_prefix("porchlight_runtime")
                .register_collector(Box::new(RuntimeCollector(runtime.metrics())));
        }
        crate::trace::FIGURES.register(root.sub_registry_with_prefix("porchlight_trace"));
        Self { root }
    }

    /// Where to register; a metric `requests` here is `porchlight_<area>_requests` outside.
    pub fn area(&mut self, area: &str) -> &mut Registry {
        self.root.sub_registry_with_prefix(format!("porchlight_{area}"))
    }

    /// All metrics in the form that was asked for.
    pub fn encode_as(&self, format: Format) -> String {
        format.of(self.encode())
    }

    /// All metrics as OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut out = String::with_capacity(16 * 1024);
        // Writing to a string does not fail; a collector that fails leaves its part out.
        let _ = text::encode(&mut out, &self.root);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;

    #[test]
    fn names_carry_the_prefix_and_the_area() {
        let mut metrics = Metrics::new("1.2.3", "ingress");
        let requests = Counter::<u64>::default();
        metrics
            .area("ingress")
            .register("requests", "Requests", requests.clone());
        requests.inc();
        let shown = metrics.encode();
        assert!(shown.contains("porchlight_ingress_requests_total 1"), "{shown}");
        assert!(
            shown.contains(r#"porchlight_build_info{version="1.2.3",role="ingress"} 1"#),
            "{shown}"
        );
        assert!(shown.ends_with("# EOF\n"), "{shown}");
        assert!(!shown.contains("porchlight_runtime_"), "no runtime: {shown}");
    }

    #[tokio::test]
    async fn the_runtime_is_shown_that_it_is_made_in() {
        let shown = Metrics::new("1.2.3", "test").encode();
        for name in ["threads", "tasks", "queued_tasks", "busy_seconds_total"] {
            assert!(
                shown.contains(&format!("\nporchlight_runtime_{name} ")),
                "{shown}"
            );
        }
    }
}
