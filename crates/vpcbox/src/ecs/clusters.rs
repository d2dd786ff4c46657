//! Clusters: CreateCluster, DescribeClusters, ListClusters, DeleteCluster, and the cluster that every other call names.

use super::{
    Call, Ecs,
    error::ApiError,
    input::Input,
    instances::Status,
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
}

impl Ecs {
    /// Makes the clusters that the configuration names.
    pub(super) fn found_clusters(&mut self, names: &[String]) {
        for name in names {
            let cluster = Cluster { name: name.clone(), active: true, tags: Tags::new() };
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
            let cluster = Cluster { name: name.to_owned(), active: true, tags };
            self.clusters.insert(name.to_owned(), cluster);
        }
        let described = self.clusters.get(name).map(|cluster| self.cluster_json(cluster, true));
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
        let with_tags = input.includes("include", &allowed, "TAGS")?;
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
                Some(cluster) => found.push(self.cluster_json(cluster, with_tags)),
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
        if self.instances.values().any(|i| i.cluster == name && i.status != Status::Inactive) {
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
        let described = self.clusters.get(&name).map(|cluster| self.cluster_json(cluster, true));
        Ok(json!({ "cluster": described }))
    }

    fn cluster_json(&self, cluster: &Cluster, with_tags: bool) -> Value {
        let registered = self.instances.values().filter(|i| i.cluster == cluster.name);
        let registered = registered.filter(|i| i.status != Status::Inactive).count();
        let tasks = || self.tasks.values().filter(|task| task.cluster == cluster.name);
        let running = tasks().filter(|task| task.last.counts_as_running()).count();
        let pending = tasks().filter(|task| task.last.counts_as_pending()).count();
        json!({
            "clusterArn": self.names.cluster(&cluster.name),
            "clusterName": cluster.name,
            "status": if cluster.active { "ACTIVE" } else { "INACTIVE" },
            "registeredContainerInstancesCount": registered,
            "runningTasksCount": running,
            "pendingTasksCount": pending,
            "activeServicesCount": 0,
            "statistics": [],
            "tags": if with_tags { tags::write(&cluster.tags) } else { json!([]) },
            "settings": [{ "name": "containerInsights", "value": "disabled" }],
            "capacityProviders": [],
            "defaultCapacityProviderStrategy": [],
        })
    }
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
