//! Running `nft` in the VPC's namespace.

use super::{
    super::{FabricError, names, setup::namespace_failed},
    Drops,
    words::{DENIED_IN, DENIED_OUT, MISDIRECTED, SPOOFED, TABLE},
};
use berth_netns::ns::Netns;
use serde::Deserialize;
use std::{collections::BTreeMap, io, path::Path, process::Stdio, time::Duration};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
    runtime::Handle,
    time::timeout,
};

/// Where it is: the search path of somebody who is not root often ends before the last two.
const PROGRAMS: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];
/// A change of one ENI takes 20 ms, up to 80 where there are hundreds; a table that is made anew 12 ms for each. The rest is for a
/// machine under load.
const LIMIT: Duration = Duration::from_secs(120);
/// As much of its complaint as is worth a line of log.
const SHOWN: usize = 400;

/// Applies a script, as a whole or not at all. On an error that is not [`FabricError::NftRefused`] it is not known which.
pub(in crate::fabric) async fn apply(vpc: &Netns, script: String) -> Result<(), FabricError> {
    if script.is_empty() {
        return Ok(());
    }
    run(vpc, &["-f", "-"], script).await.map(drop)
}

/// What was dropped, by ENI, read from the kernel now; `which` are the ENIs to look for.
pub async fn drops(
    vpc: &Path,
    which: impl IntoIterator<Item = &str>,
) -> Result<BTreeMap<String, Drops>, FabricError> {
    let netns = Netns::open(vpc).map_err(namespace_failed("open namespace", vpc.display()))?;
    let mut arguments = vec!["-j", "list", "counters", "table"];
    arguments.extend(TABLE.split(' '));
    let said = run(&netns, &arguments, String::new()).await?;
    let read: Reply = serde_json::from_slice(&said).map_err(FabricError::NftReply)?;
    let counted: BTreeMap<_, _> =
        read.nftables.into_iter().filter_map(|o| o.counter).map(|c| (c.name, c.packets)).collect();
    let of = |eni: &str| {
        let end = names::vpc_end(eni);
        let count = |what| counted.get(&format!("{end}_{what}")).copied();
        Some(Drops {
            denied_out: count(DENIED_OUT)?,
            denied_in: count(DENIED_IN)?,
            spoofed: count(SPOOFED)?,
            misdirected: count(MISDIRECTED)?,
        })
    };
    Ok(which.into_iter().filter_map(|eni| Some((eni.to_owned(), of(eni)?))).collect())
}

#[derive(Deserialize)]
struct Reply {
    nftables: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    counter: Option<Counter>,
}

#[derive(Deserialize)]
struct Counter {
    name: String,
    packets: u64,
}

/// Runs it to its end; what it printed.
async fn run(vpc: &Netns, arguments: &[&str], input: String) -> Result<Vec<u8>, FabricError> {
    let mut child = start(vpc, arguments)?;
    let stdin = child.stdin.take();
    let talk = async {
        if let Some(mut stdin) = stdin {
            // One that ends before it has read all says itself why.
            drop(stdin.write_all(input.as_bytes()).await);
        }
        child.wait_with_output().await
    };
    // A child that is dropped is killed.
    let output = match timeout(LIMIT, talk).await {
        Ok(ended) => ended.map_err(FabricError::Nft)?,
        Err(_) => return Err(FabricError::NftSlow { seconds: LIMIT.as_secs() }),
    };
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(FabricError::NftRefused(said.chars().take(SHOWN).map(|c| if c == '\n' { ' ' } else { c }).collect()))
}

/// A process is born into the namespace of the thread that starts it.
fn start(vpc: &Netns, arguments: &[&str]) -> Result<Child, FabricError> {
    let runtime = Handle::current();
    let spawn = || {
        let _entered = runtime.enter();
        let mut missing = io::Error::from(io::ErrorKind::NotFound);
        for program in PROGRAMS {
            let mut command = Command::new(program);
            command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            match command.kill_on_drop(true).spawn() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => missing = error,
                other => return other.map_err(FabricError::Nft),
            }
        }
        Err(FabricError::NoNft(missing))
    };
    vpc.run(spawn).map_err(namespace_failed("enter", "the VPC"))?
}
