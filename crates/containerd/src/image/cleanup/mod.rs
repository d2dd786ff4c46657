//! Clean-up: images that no task has used for a while go, at once if the disk is full, and so does what broken-off pulls left.
//!
//! ```text
//!  every interval ──► inventory ──► plan::by_age ─────────────────────┐
//!  every minute ──► usage ──(full)──► inventory ──► plan::by_pressure ┴──► remove, each after a last look ──► containerd's collector
//!                                                                           ▲
//!  launches ── Pins::ask ───────────────────────────────────────────────────┘ what is asked for stays
//!  operators ── images, remove_image
//! ```
//!
//! A race with a launch is harmless: [`Pins`] keeps the two apart, and an image that went a moment too early is pulled again.

mod inventory;
mod pins;
mod plan;
mod remove;
mod stale;
#[cfg(test)]
mod tests;
mod usage;

pub(crate) use pins::Pins;

use super::Images;
use crate::{
    Containerd,
    client::{LIST_DEADLINE, REMOVE_DEADLINE},
    error::{Fault, Result, lost_connection, within},
};
use berth_types::{Chain, Timestamp, image::ImageView, ports::ContainerError};
use plan::Candidate;
use std::{path::PathBuf, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

/// How often the disk is looked at: a pull fills some gigabytes in that time.
const PRESSURE_INTERVAL: Duration = Duration::from_secs(60);
/// The first look: an agent that came up on a full disk, or that a full disk keeps ending, makes room soon. Not at once, as it takes its
/// tasks over then, and they need their images.
const FIRST_LOOK: Duration = Duration::from_secs(10);
/// Shortest time between cycles, whatever is configured: a cycle reads all documents of all images.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// What is cleaned up, and when. The defaults are the official agent's, but for the disk's, which it does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanupConfig {
    /// Whether anything is: not with `ECS_DISABLE_IMAGE_CLEANUP`, nor where images are pulled only if they are not here.
    pub enabled: bool,
    /// Time between cycles.
    pub interval: Duration,
    /// An image that was pulled less than this ago stays.
    pub minimum_age: Duration,
    /// Images that a cycle removes at most.
    pub per_cycle: usize,
    /// Images that stay, as users write them: `busybox:1.36`.
    pub exclude: Vec<String>,
    /// Whether images that this agent did not pull go, too.
    pub untracked: bool,
    /// Of those, one that is younger than this stays.
    pub untracked_minimum_age: Duration,
    /// Percent of the file system above which unused images go whatever their age; `None`: never.
    pub pressure_high: Option<u8>,
    /// Percent at which that is enough.
    pub pressure_low: u8,
    /// containerd's root directory: its file system is the one that counts.
    pub root: PathBuf,
}

impl Default for CleanupConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Duration::from_secs(30 * 60),
            minimum_age: Duration::from_secs(60 * 60),
            per_cycle: 5,
            exclude: Vec::new(),
            untracked: false,
            untracked_minimum_age: Duration::from_secs(60 * 60),
            // The kubelet's thresholds for images.
            pressure_high: Some(85),
            pressure_low: 80,
            root: PathBuf::from("/var/lib/containerd"),
        }
    }
}

type Done = std::result::Result<CleanupReport, ContainerError>;

/// What a clean-up did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CleanupReport {
    /// Names of the images that are gone.
    pub removed: Vec<String>,
    /// Bytes of their blobs; what they share with others is still there.
    pub bytes: u64,
    /// Half-written blobs that were given up.
    pub half_blobs: usize,
    /// Leases of pulls and imports that were given up.
    pub leases: usize,
    /// Whether the disk is fuller than it may be, with nothing left to remove.
    pub still_full: bool,
}

impl Containerd {
    /// Cleans up until told to stop. What fails is told in the log and tried again in the next round.
    pub async fn run_image_cleanup(&self, config: CleanupConfig, stop: CancellationToken) {
        if !config.enabled {
            tracing::info!("image clean-up is off");
            return;
        }
        // Cut off at any point it leaves an image with fewer names, which the next round takes away.
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.clean_up_for_ever(&config) => {}
        }
    }

    async fn clean_up_for_ever(&self, config: &CleanupConfig) {
        let every = |period, first| {
            let mut interval = interval_at(Instant::now() + first, period);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        };
        let period = config.interval.max(SHORTEST_INTERVAL);
        let mut cycle = every(period, period);
        let mut look = every(PRESSURE_INTERVAL, FIRST_LOOK);
        let mut told = Told::default();
        loop {
            // Both ticks are cancel-safe; the work is done outside.
            let regular = tokio::select! {
                _ = cycle.tick() => true,
                _ = look.tick() => false,
            };
            if !regular {
                told.look(&self.relieve_disk(config).await, config);
            } else if let Err(error) = self.clean_images(config).await {
                tracing::warn!(error = %Chain(&error), "image clean-up failed");
            }
        }
    }

    /// One regular cycle: old unused images, and what broken-off pulls left.
    pub async fn clean_images(&self, config: &CleanupConfig) -> Done {
        let done = within(REMOVE_DEADLINE, self.inner.images.clean(config, Timestamp::now())).await;
        done.map_err(|fault| fault.of("clean up", "images"))
    }

    /// Removes unused images if the disk is fuller than it may be, until it is not.
    pub async fn relieve_disk(&self, config: &CleanupConfig) -> Done {
        let done = within(REMOVE_DEADLINE, self.inner.images.relieve(config)).await;
        done.map_err(|fault| fault.of("make room on the disk of", config.root.display().to_string()))
    }

    /// All images in our containerd namespace, by name.
    pub async fn images(&self) -> std::result::Result<Vec<ImageView>, ContainerError> {
        let images = &self.inner.images;
        let done = within(LIST_DEADLINE, inventory::views(&images.client, &images.pins)).await;
        done.map_err(|fault| fault.of("list", "images"))
    }

    /// Removes a name, and the image if that was its last; `false` if there is no such name. Refused while containers are made of it.
    pub async fn remove_image(&self, name: &str) -> std::result::Result<bool, ContainerError> {
        let done = within(REMOVE_DEADLINE, self.inner.images.remove_name(name)).await;
        done.map_err(|fault| fault.of("remove image", name))
    }
}

/// What the log has been told, so that a state of hours is not told every minute.
#[derive(Debug, Default)]
struct Told {
    full: bool,
    failed: bool,
}

impl Told {
    fn look(&mut self, done: &Done, config: &CleanupConfig) {
        let root = config.root.display();
        match done {
            Err(error) if !self.failed => {
                tracing::warn!(error = %Chain(error), "disk of images cannot be looked after");
            }
            Err(error) => {
                tracing::debug!(error = %Chain(error), "disk of images still cannot be looked after");
            }
            Ok(report) if report.still_full && !self.full => {
                tracing::warn!(%root, "disk is full and no image can be removed");
            }
            Ok(_) => {}
        }
        self.failed = done.is_err();
        self.full = done.as_ref().is_ok_and(|report| report.still_full);
    }
}

impl Images {
    async fn clean(&self, config: &CleanupConfig, now: Timestamp) -> Result<CleanupReport> {
        let mut report = CleanupReport::default();
        let images = inventory::candidates(&self.client, &self.pins).await?;
        for image in plan::by_age(&images, config, now) {
            self.take_away(image, "unused", &mut report).await?;
        }
        (report.half_blobs, report.leases) = stale::drop_old(&self.client, now).await?;
        if report.half_blobs + report.leases > 0 {
            tracing::info!(
                blobs = report.half_blobs,
                leases = report.leases,
                "what broken-off pulls left is removed"
            );
        }
        Ok(report)
    }

    async fn relieve(&self, config: &CleanupConfig) -> Result<CleanupReport> {
        let mut report = CleanupReport::default();
        let Some(high) = config.pressure_high else { return Ok(report) };
        let before = usage::percent(&config.root).await?;
        if before <= high {
            return Ok(report);
        }
        let low = config.pressure_low.min(high);
        if self.pulls().borrow().active.is_empty() {
            (report.half_blobs, report.leases) = stale::drop_for_room(&self.client, Timestamp::now()).await?;
        }
        let images = inventory::candidates(&self.client, &self.pins).await?;
        let mut now = usage::percent(&config.root).await?;
        for image in plan::by_pressure(&images, config) {
            if now <= low {
                break;
            }
            if self.take_away(image, "disk is full", &mut report).await? {
                now = usage::percent(&config.root).await?;
            }
        }
        report.still_full = now > high;
        if now < before {
            let names = report.removed.len();
            tracing::info!(before, now, names, blobs = report.half_blobs, "room was made on a full disk");
        }
        Ok(report)
    }

    async fn take_away(
        &self,
        image: &Candidate,
        why: &'static str,
        report: &mut CleanupReport,
    ) -> Result<bool> {
        let gone = match self.remove(image).await {
            Ok(gone) => gone,
            // Of this image; the others may go.
            Err(Fault::Rpc { call, status }) if !lost_connection(&status) => {
                tracing::warn!(
                    image = image.digest,
                    call,
                    error = status.message(),
                    "image cannot be removed"
                );
                false
            }
            Err(fault) => return Err(fault),
        };
        if gone {
            tracing::info!(image = image.digest, names = ?image.names, bytes = image.bytes, why, "image removed");
            report.removed.extend(image.names.iter().cloned());
            report.bytes += image.bytes;
        }
        Ok(gone)
    }
}
