//! Every document against the schema of who reads it: Kubernetes, KEDA, the operators of RabbitMQ and of Prometheus.
//!
//! What a document means is not asked here.

use serde_json::{Value, json};

use super::{build, list, manifests_py, named, none, place, production, root, text};

fn schema_problems(documents: &[Value]) -> Vec<String> {
    let problems = manifests_py(&["check"], &Value::from(documents.to_vec()).to_string());
    list(&problems)
        .iter()
        .map(|problem| text(problem).to_owned())
        .collect()
}

#[test]
fn the_base_and_the_overlay_for_production_are_what_kubernetes_and_the_operators_take() {
    none(&schema_problems(&build("base")));
    none(&schema_problems(production()));
}

#[test]
fn every_component_is_built_by_an_overlay_or_by_this_test() {
    let overlay = root().join("deploy/kubernetes/production/kustomization.yaml");
    let made = std::fs::read_to_string(overlay).unwrap();
    let components = std::fs::read_dir(root().join("deploy/kubernetes/components")).unwrap();
    for component in components.flatten() {
        let name = component.file_name().to_string_lossy().into_owned();
        if !made.contains(&format!("components/{name}\n")) {
            none(&schema_problems(&with_component(&name)));
        }
    }
}

/// The base with one component, in a folder of its own.
pub(super) fn with_component(name: &str) -> Vec<Value> {
    // Inside of the tree, because kustomize takes relative paths only.
    let target = root().join("target");
    std::fs::create_dir_all(&target).unwrap();
    let folder = tempfile::Builder::new()
        .prefix("overlay-")
        .tempdir_in(target)
        .unwrap();
    let kustomization = format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../../deploy/kubernetes/base]\n\
         components: [../../deploy/kubernetes/components/{name}]\n"
    );
    std::fs::write(folder.path().join("kustomization.yaml"), kustomization).unwrap();
    let path = folder.path().to_string_lossy().into_owned();
    list(&manifests_py(&["build", &path], "")).to_vec()
}

#[test]
fn the_alert_rules_of_the_cluster_are_those_that_are_tested() {
    let tested = manifests_py(&["read", "deploy/prometheus/porchlight.rules.yml"], "");
    let rules = "deploy/kubernetes/components/monitoring/rules.yaml";
    assert!(
        manifests_py(&["read", rules], "")[0]["spec"] == tested[0],
        "{rules} is not what its first lines say how to make"
    );
    // Kustomize writes queries with other blanks.
    let made = named(production(), "PrometheusRule", "porchlight");
    assert_eq!(
        list(&made["spec"]["groups"]).len(),
        list(&tested[0]["groups"]).len()
    );
}

#[test]
fn a_field_that_nobody_knows_is_a_problem_in_every_kind() {
    let spoiled: Vec<Value> = production()
        .iter()
        .map(|document| {
            let mut document = document.clone();
            if document["spec"].is_object() {
                document["spec"]["surprise"] = json!(1);
            } else {
                document["surprise"] = json!(1);
            }
            document
        })
        .collect();
    let problems = schema_problems(&spoiled);
    for document in &spoiled {
        let name = format!(
            "{}/{}: ",
            text(&document["kind"]),
            text(&document["metadata"]["name"])
        );
        let found = problems.iter().any(|problem| problem.starts_with(&name));
        assert!(found, "nobody minds the surprise in {name}");
    }
}

#[test]
fn a_value_of_the_wrong_kind_or_an_unknown_word_is_a_problem() {
    let mut all = production().to_vec();
    *place(
        &mut all,
        "RabbitmqCluster",
        "porchlight-rabbitmq",
        "/spec/replicas",
    ) = json!("three");
    *place(&mut all, "PodMonitor", "porchlight", "/spec/podMetricsEndpoints") = json!({});
    let port = "/spec/template/spec/containers/0/ports/0/containerPort";
    *place(&mut all, "Deployment", "porchlight-worker", port) = json!("admin");
    *place(
        &mut all,
        "ScaledObject",
        "porchlight-worker",
        "/spec/maxReplicaCount",
    ) = json!("many");
    place(&mut all, "ScaledObject", "porchlight-ingress", "/spec")
        .as_object_mut()
        .unwrap()
        .remove("scaleTargetRef");
    *place(&mut all, "TriggerAuthentication", "porchlight-rabbitmq", "/kind") = json!("ScaledThing");
    let problems = schema_problems(&all);
    for words in [
        "replicas",
        "podMetricsEndpoints",
        "containerPort",
        "maxReplicaCount",
        "scaleTargetRef",
        "has no ScaledThing",
    ] {
        let found = problems.iter().any(|problem| problem.contains(words));
        assert!(found, "{words} is not among {problems:?}");
    }
}
