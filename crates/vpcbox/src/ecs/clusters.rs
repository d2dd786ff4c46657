//! Clusters: CreateCluster, DescribeClusters, ListClusters, DeleteCluster, and the cluster that every other call names.

use super::{
    Call, Ecs,
    error::ApiError,
    input::Input,
    paging,
    tags::{self, Tags},
    tasks::TaskStatus,
};
use serde_json::{Value, json};

/// The cluster of a call that names none.
pub(super) const DEFAULT: &str = "default";
/// Clusters at a time, inactive ones included: a box is one machine.
const MAX_CLUSTERS: usize = 100;
/// ECS's limits.
const MAX_NAME: usize = 255;
const MAX_DESCRIBED: usize = 100;

/// A cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    /// Its name.
    pub(super) name: String,
    /// Whether it can be used; a deleted cluster can still be described.
    pub(super) active: bool,
    /// Its tags.
    pub(super) tags: Tags,
    /// What its setting `containerInsights` says. Nothing here collects any.
    insights: &'static str,
}

/// What `containerInsights` can be, the default first.
const INSIGHTS: [&str; 3] = ["disabled", "enabled", "enhanced"];

/// What the reply to a call shows of a cluster besides what it always shows.
#[derive(Debug, Clone, Copy)]
struct Shown {
    settings: bool,
    statistics: bool,
    tags: bool,
}

/// What it shows of a cluster that was just made or deleted.
const CHANGED: Shown = Shown { settings: true, statistics: false, tags: true };

impl Ecs {
    /// Makes the clusters that the configuration names.
    pub(super) fn found_clusters(&mut self, names: &[String]) {
        for name in names {
            let cluster =
                Cluster { name: name.clone(), active: true, tags: Tags::new(), insights: INSIGHTS[0] };
            self.clusters.insert(name.clone(), cluster);
        }
    }

    /// The active cluster that a call names.
    pub(super) fn cluster(&self, input: Input<'_>) -> Result<String, ApiError> {
        let reference = input.text("cluster")?.filter(|name| !name.is_empty()).unwrap_or(DEFAULT);
        let name = self.names.cluster_name(reference)?;
        match self.clusters.get(name) {
            Some(cluster) if cluster.active => Ok(name.to_owned()),
            Some(_) => Err(ApiError::invalid("The referenced cluster was inactive.")),
            None => Err(ApiError::cluster_not_found()),
        }
    }

    pub(super) fn create_cluster(&mut self, input: &Value, _call: &mut Call<'_>) -> Result<Value, ApiError> {
        let input = Input::new(input)?;
        let name = input.text("clusterName")?.filter(|name| !name.is_empty()).unwrap_or(DEFAULT);
        let tags = tags::read(input, "tags")?;
        let insights = read_settings(input)?;
        if !is_name(name) {
            return Err(ApiError::invalid("Cluster name contains invalid characters."));
        }
        if !input.list("capacityProviders")?.is_empty() {
            return Err(ApiError::invalid("The specified capacity provider was not found."));
        }
        let is_new = self.clusters.get(name).is_none_or(|cluster| !cluster.active);
        if is_new {
            if self.clusters.len() >= MAX_CLUSTERS && !self.clusters.contains_key(name) {
                return Err(ApiError::limit(format!(
                    "You have reached the limit of {MAX_CLUSTERS} clusters."
                )));
            }
            let cluster = Cluster { name: name.to_owned(), active: true, tags, insights };
            self.clusters.insert(name.to_owned(), cluster);
        }
        let described = self.clusters.get(name).map(|cluster| self.cluster_json(cluster, CHANGED));
        Ok(json!({ "cluster": described }))
    }

    pub(super) fn describe_clusters(
        &mut self,
        input: &Value,
        _call: &mut Call<'_>,
    ) -> Result<Value, ApiError> {
        let input = Input::new(input)?;
        let mut references = input.texts("clusters")?;
        let allowed = ["ATTACHMENTS", "CONFIGURATIONS", "SETTINGS", "STATISTICS", "TAGS"];
        let shown = Shown {
            settings: input.includes("include", &allowed, "SETTINGS")?,
            statistics: input.includes("include", &allowed, "STATISTICS")?,
            tags: input.includes("include", &allowed, "TAGS")?,
        };
        if references.len() > MAX_DESCRIBED {
            return Err(ApiError::invalid(format!("clusters can have at most {MAX_DESCRIBED} items.")));
        }
        if references.is_empty() {
            references.push(DEFAULT);
        }
        let (mut found, mut failures) = (Vec::new(), Vec::new());
        for reference in references {
            let cluster = self.names.cluster_name(reference).ok().and_then(|name| self.clusters.get(name));
            match cluster {
                Some(cluster) => found.push(self.cluster_json(cluster, shown)),
                None if reference.starts_with("arn:") => failures.push(missing(reference)),
                None => failures.push(missing(&self.names.cluster(reference))),
            }
        }
        Ok(json!({ "clusters": found, "failures": failures }))
    }

    pub(super) fn list_clusters(&mut self, input: &Value, _call: &mut Call<'_>) -> Result<Value, ApiError> {
        let active = self.clusters.values().filter(|cluster| cluster.active);
        let arns = active.map(|cluster| self.names.cluster(&cluster.name)).collect();
        paging::page(Input::new(input)?, "clusterArns", arns)
    }

    pub(super) fn delete_cluster(&mut self, input: &Value, _call: &mut Call<'_>) -> Result<Value, ApiError> {
        let input = Input::new(input)?;
        let reference = input.required("cluster", "Cluster can not be blank.")?;
        let name = self.names.cluster_name(reference)?.to_owned();
        if !self.clusters.contains_key(&name) {
            return Err(ApiError::cluster_not_found());
        }
        if self.registered_in(&name) > 0 {
            let message = "The Cluster cannot be deleted while Container Instances are active or draining.";
            return Err(ApiError::new("ClusterContainsContainerInstancesException", message));
        }
        if self.tasks.values().any(|t| t.cluster == name && t.last != TaskStatus::Stopped) {
            let message = "The Cluster cannot be deleted while Tasks are active.";
            return Err(ApiError::new("ClusterContainsTasksException", message));
        }
        if let Some(cluster) = self.clusters.get_mut(&name) {
            cluster.active = false;
        }
        let described = self.clusters.get(&name).map(|cluster| self.cluster_json(cluster, CHANGED));
        Ok(json!({ "cluster": described }))
    }

    fn cluster_json(&self, cluster: &Cluster, shown: Shown) -> Value {
        let tasks = || self.tasks.values().filter(|task| task.cluster == cluster.name);
        let running = tasks().filter(|task| task.last.counts_as_running()).count();
        let pending = tasks().filter(|task| task.last.counts_as_pending()).count();
        json!({
            "clusterArn": self.names.cluster(&cluster.name),
            "clusterName": cluster.name,
            "status": if cluster.active { "ACTIVE" } else { "INACTIVE" },
            "registeredContainerInstancesCount": self.registered_in(&cluster.name),
            "runningTasksCount": running,
            "pendingTasksCount": pending,
            "activeServicesCount": 0,
            "statistics": if shown.statistics { statistics(running, pending) } else { json!([]) },
            "tags": if shown.tags { tags::write(&cluster.tags) } else { json!([]) },
            "settings": if shown.settings { settings(cluster) } else { json!([]) },
            "capacityProviders": [],
            "defaultCapacityProviderStrategy": [],
        })
    }
}

fn settings(cluster: &Cluster) -> Value {
    json!([{ "name": "containerInsights", "value": cluster.insights }])
}

/// What there is by launch type, of which the box has one.
fn statistics(running: usize, pending: usize) -> Value {
    let counts = [
        ("runningEC2TasksCount", running),
        ("runningFargateTasksCount", 0),
        ("pendingEC2TasksCount", pending),
        ("pendingFargateTasksCount", 0),
        ("activeEC2ServiceCount", 0),
        ("activeFargateServiceCount", 0),
        ("drainingEC2ServiceCount", 0),
        ("drainingFargateServiceCount", 0),
    ];
    counts.iter().map(|(name, count)| json!({ "name": name, "value": count.to_string() })).collect()
}

/// What the call says of `containerInsights`.
fn read_settings(input: Input<'_>) -> Result<&'static str, ApiError> {
    let mut insights = INSIGHTS[0];
    for setting in input.objects("settings")? {
        if setting.one_of("name", &["containerInsights"])?.is_none() {
            return Err(ApiError::invalid("Setting name can not be blank."));
        }
        insights = setting.one_of("value", &INSIGHTS)?.unwrap_or(insights);
    }
    Ok(insights)
}

/// What a describe call says of something that is not there.
pub(super) fn missing(arn: &str) -> Value {
    json!({ "arn": arn, "reason": "MISSING" })
}

/// Whether a cluster may be called so.
pub fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}
