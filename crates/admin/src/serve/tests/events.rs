//! Events over the API: looked back at, and followed.

use super::*;
use crate::{Event, EventKind, events::MAX_FOLLOWERS};
use futures::StreamExt;
use http_body_util::BodyStream;
use std::time::Duration;

/// Longest that a test waits for something that comes at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// The lines of a stream as they come.
struct Lines {
    body: BodyStream<Incoming>,
    rest: Vec<u8>,
}

impl Lines {
    async fn of(node: &Node, path: &str) -> Self {
        let response = node.send("GET", path, "").await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        Self { body: BodyStream::new(response.into_body()), rest: vec![] }
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.next()).await.expect("no event in time")?;
            self.rest.extend_from_slice(frame.unwrap().data_ref().unwrap());
        }
    }

    /// The next event that is so.
    async fn find(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        loop {
            let event = self.next().await.expect("the stream ended");
            if wanted(&event) {
                return event;
            }
        }
    }
}

fn is_task(event: &Event, status: &str) -> bool {
    event.news.kind == EventKind::Task && event.news.status.as_deref() == Some(status)
}

#[tokio::test]
async fn a_follower_sees_what_happens_and_a_later_reader_sees_the_same() {
    let node = node().await;
    let mut lines = Lines::of(&node, "/v1/events?follow=true").await;
    let id = node.run().await.rsplit('/').next().unwrap().to_owned();
    let first = lines.find(|e| is_task(e, "PROVISIONING")).await;
    assert_eq!(first.news.task.as_ref().map(TaskArn::id), Some(id.as_str()));
    node.call("POST", &format!("/v1/tasks/{id}/stop"), json!({"reason": "enough"}).to_string()).await;
    let stopped = lines.find(|e| is_task(e, "STOPPED")).await;
    assert_eq!(stopped.news.text, "web:1 is STOPPED: enough");
    node.call("POST", "/v1/drain", "").await;
    let drained = lines.find(|e| e.news.kind == EventKind::Instance).await;
    assert_eq!(drained.news.status.as_deref(), Some("DRAINING"));

    let mut all = Lines::of(&node, "/v1/events").await;
    let mut seqs = vec![];
    while let Some(event) = all.next().await {
        seqs.push(event.seq);
    }
    assert_eq!(seqs, (1..=drained.seq).collect::<Vec<_>>());
    let mut rest = Lines::of(&node, &format!("/v1/events?after={}", stopped.seq)).await;
    assert_eq!(rest.next().await, Some(drained));
    assert_eq!(rest.next().await, None);
}

#[tokio::test]
async fn a_follower_hears_that_the_agent_goes_down() {
    let node = node().await;
    let mut lines = Lines::of(&node, "/v1/events?follow=true").await;
    node.shutdown.cancel();
    let last = lines.find(|e| e.news.kind == EventKind::End).await;
    assert!(last.news.text.contains("going down"), "{}", last.news.text);
    assert_eq!(lines.next().await, None);
}

#[tokio::test]
async fn there_are_so_many_followers_and_the_place_of_one_that_left_is_free_again() {
    let node = node().await;
    let mut all = vec![];
    for _ in 0..MAX_FOLLOWERS {
        all.push(Lines::of(&node, "/v1/events?follow=true").await);
    }
    let (status, answer) = node.call("GET", "/v1/events?follow=true", "").await;
    assert_eq!(status, 503, "{answer}");
    all.pop();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while node.send("GET", "/v1/events?follow=true", "").await.status() != 200 {
        assert!(tokio::time::Instant::now() < deadline, "the place is still taken");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_bad_query_names_the_parameter() {
    let node = node().await;
    for (query, text) in [("follow=maybe", "follow"), ("after=x", "after"), ("tail=1", "tail")] {
        let (status, answer) = node.call("GET", &format!("/v1/events?{query}"), "").await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(text), "{answer}");
    }
}
