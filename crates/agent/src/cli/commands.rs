//! One function for each client command.

use super::{
    ClientArgs, Command, DrainArgs, EventsArgs, ImageCommand, LogsArgs, PoolArgs, RunArgs, StopArgs,
    TaskArgs, client::Client, show,
};
use crate::{config::Config, wire};
use anyhow::{Context, Result, bail};
use berth_admin::{
    Event, RunRequest,
    view::{
        ClusterView, EniList, HealthView, ImageList, InstanceView, LogView, Pool, ResizeRequest, RunView,
        SlotList, TaskList, TaskView,
    },
};
use berth_types::Timestamp;
use http::Method;
use serde::Serialize;
use serde_json::{json, value::RawValue};
use std::{
    io::{Read, Write},
    path::Path,
};

/// Runs a client command; the error's text is for people.
pub(crate) async fn run(command: Command) -> Result<()> {
    match command {
        Command::Agent { .. } => bail!("the agent is not a client command"),
        Command::Run(args) => run_task(args).await,
        Command::Tasks(args) => {
            let list: TaskList = client(&args).get("/v1/tasks").await?;
            print(&args, &list, |l| show::tasks(&l.tasks, Timestamp::now()))
        }
        Command::Inspect(TaskArgs { task, client: args }) => {
            let view: TaskView = client(&args).get(&task_path(&task)?).await?;
            print(&args, &view, |v| show::task(v, Timestamp::now()))
        }
        Command::Stop(args) => stop_task(args).await,
        Command::Rm(TaskArgs { task, client: args }) => client(&args).delete(&task_path(&task)?).await,
        Command::Logs(args) => logs(args).await,
        Command::Enis(args) => {
            let list: EniList = client(&args).get("/v1/enis").await?;
            print(&args, &list, |l| show::enis(&l.enis, Timestamp::now()))
        }
        Command::Slots(args) => {
            let list: SlotList = client(&args).get("/v1/slots").await?;
            print(&args, &list, |l| show::slots(&l.slots, Timestamp::now()))
        }
        Command::Pool(args) => pool(args).await,
        Command::Status(args) => status(args).await,
        Command::Events(args) => events(args).await,
        Command::Drain(args) => drain(args).await,
        Command::Images(args) => {
            let list: ImageList = client(&args).get("/v1/images").await?;
            print(&args, &list, |l| show::images(l, Timestamp::now()))
        }
        Command::Image { command } => image(command).await,
    }
}

async fn image(command: ImageCommand) -> Result<()> {
    match command {
        ImageCommand::Import { file, name, config, json } => {
            import(&file, name.as_deref(), &config, json).await
        }
        ImageCommand::Rm { name, client: args } => {
            client(&args).delete(&format!("/v1/images?name={}", query_value(&name))).await
        }
    }
}

/// A text as the value of a query parameter: everything but letters, digits and what cannot be taken for a separator is escaped.
fn query_value(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/:@".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

async fn status(args: ClientArgs) -> Result<()> {
    let client = client(&args);
    let instance: InstanceView = client.get("/v1/instance").await?;
    let cluster: ClusterView = client.get("/v1/cluster").await?;
    let health: HealthView = client.get("/v1/health").await?;
    let all = json!({"instance": instance, "cluster": cluster, "health": health});
    print(&args, &all, |_| show::status(&instance, &cluster, &health, Timestamp::now()))
}

async fn drain(args: DrainArgs) -> Result<()> {
    let path = if args.undo { "/v1/activate" } else { "/v1/drain" };
    let view: ClusterView = client(&args.client).send(Method::POST, path, &json!({})).await?;
    print(&args.client, &view, |v| show::cluster(v, Timestamp::now()))
}

async fn events(args: EventsArgs) -> Result<()> {
    let after = args.after.map(|after| format!("&after={after}")).unwrap_or_default();
    let path = format!("/v1/events?follow={}{after}", args.follow);
    let json = args.client.json;
    client(&args.client)
        .lines(&path, |line| {
            if json {
                return write_out(&format!("{line}\n"));
            }
            let event: Event = serde_json::from_str(line).context("read an event of the agent")?;
            write_out(&show::event(&event))
        })
        .await
}

fn client(args: &ClientArgs) -> Client {
    Client::new(&args.socket)
}

/// Prints JSON or a table.
fn print<T: Serialize>(args: &ClientArgs, value: &T, table: impl Fn(&T) -> String) -> Result<()> {
    let text = if args.json { serde_json::to_string_pretty(value)? + "\n" } else { table(value) };
    write_out(&text).map(drop)
}

/// Answers whether somebody still reads: one who went away (`| head`) is not an error.
fn write_out(text: &str) -> Result<bool> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(e).context("write to standard output"),
    }
}

/// The task's path; its id goes into a URL, so nothing but the letters of ids and ARNs may pass.
fn task_path(task: &str) -> Result<String> {
    let id = task.rsplit('/').next().unwrap_or_default();
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        bail!("`{task}` is not a task: expected its id, the beginning of it, or its ARN");
    }
    Ok(format!("/v1/tasks/{id}"))
}

fn read_definition(file: &Path) -> Result<Box<RawValue>> {
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).context("read the task definition from standard input")?;
    } else {
        text = std::fs::read_to_string(file)
            .with_context(|| format!("read the task definition {}", file.display()))?;
    }
    RawValue::from_string(text).with_context(|| format!("the task definition {} is not JSON", file.display()))
}

async fn run_task(args: RunArgs) -> Result<()> {
    let client = client(&args.client);
    let request = RunRequest {
        task_definition: read_definition(&args.file)?,
        subnet: args.subnet,
        security_groups: args.security_groups,
        group: None,
    };
    let RunView { task } = client.send(Method::POST, "/v1/tasks", &request).await?;
    let wait = if args.detach { String::new() } else { format!("?wait=RUNNING&timeout={}", args.timeout) };
    let view: TaskView = client.get(&format!("/v1/tasks/{}{wait}", task.id())).await?;
    print(&args.client, &view, |v| show::task(v, Timestamp::now()))?;
    // A short task may be over by the time it is looked at: that it came to run is what was asked for.
    if args.detach || view.started_at.is_some() {
        return Ok(());
    }
    match (&view.stopped_reason, &view.waiting) {
        (Some(reason), _) => bail!("the task stopped: {reason}"),
        (None, Some(waiting)) => {
            bail!("the task is {} after {} s: it waits for {waiting}", view.last_status, args.timeout)
        }
        (None, None) => bail!("the task is {} after {} s", view.last_status, args.timeout),
    }
}

async fn stop_task(args: StopArgs) -> Result<()> {
    let client = client(&args.client);
    let path = task_path(&args.task)?;
    let mut view: TaskView =
        client.send(Method::POST, &format!("{path}/stop"), &json!({"reason": args.reason})).await?;
    if !args.detach {
        view = client.get(&format!("{path}?wait=STOPPED&timeout={}", args.timeout)).await?;
    }
    print(&args.client, &view, |v| show::task(v, Timestamp::now()))?;
    if !args.detach && view.last_status != "STOPPED" {
        bail!("the task is {} after {} s", view.last_status, args.timeout);
    }
    Ok(())
}

async fn logs(args: LogsArgs) -> Result<()> {
    let mut path = format!("{}/logs?tail={}", task_path(&args.task)?, args.tail);
    if let Some(container) = &args.container {
        if !container.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            bail!("`{container}` is not a container's name");
        }
        path += &format!("&container={container}");
    }
    let view: LogView = client(&args.client).get(&path).await?;
    print(&args.client, &view, show::logs)?;
    if let Some(note) = &view.note {
        eprintln!("berth: {note}");
    }
    Ok(())
}

async fn pool(args: PoolArgs) -> Result<()> {
    let client = client(&args.client);
    let view: Pool = match (args.warm, args.max) {
        (None, None) => client.get("/v1/pool").await?,
        (warm, max) => client.send(Method::PUT, "/v1/pool", &ResizeRequest { warm, max }).await?,
    };
    print(&args.client, &view, |v| show::pool(v, Timestamp::now()))
}

async fn import(file: &Path, name: Option<&str>, config: &Path, json: bool) -> Result<()> {
    let config = Config::load(config)?;
    let images = wire::containerd(&config)?.import_archive(file, name).await?;
    if json {
        return write_out(&(serde_json::to_string_pretty(&images)? + "\n")).map(drop);
    }
    for image in images {
        write_out(&format!("imported {} {}\n", image.reference, image.digest))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_break_out_of_its_query_parameter() {
        assert_eq!(query_value("10.0.1.1:5000/team/web@sha256:ab"), "10.0.1.1:5000/team/web@sha256:ab");
        assert_eq!(query_value("a&b=c d+%\u{fc}"), "a%26b%3Dc%20d%2B%25%C3%BC");
    }

    #[test]
    fn a_task_is_named_by_its_id_or_its_arn_and_by_nothing_else() {
        let arn = "arn:aws:ecs:us-west-2:111122223333:task/demo/0123abcd";
        assert_eq!(task_path(arn).unwrap(), "/v1/tasks/0123abcd");
        assert_eq!(task_path("0123").unwrap(), "/v1/tasks/0123");
        for wrong in ["", "a?b", "demo/", "a b"] {
            assert!(task_path(wrong).is_err(), "{wrong}");
        }
    }
}
