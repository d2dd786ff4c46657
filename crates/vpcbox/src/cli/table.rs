//! Aligned tables for people.

use crate::{fabric::filter::Drops, serve::Status, service::control::EniLine};
use comfy_table::{Table, presets};

pub(super) fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head.iter().copied());
    table
}

/// The box, its subnets and its instances.
pub(super) fn status(status: &Status) -> String {
    let all = &status.inventory;
    let mut subnets = table(&["SUBNET", "NAME", "ZONE", "IPV4", "IPV6", "FREE"]);
    for s in &all.subnets {
        let ipv6 = s.ipv6.as_deref().unwrap_or("-");
        subnets.add_row([&s.id, &s.name, &s.zone, &s.ipv4, ipv6, &s.free.to_string()]);
    }
    let mut instances = table(&["INSTANCE", "NAME", "TYPE", "ZONE", "ADDRESS", "NAMESPACE"]);
    for i in &all.instances {
        let netns = i.netns.as_ref().map_or_else(|| "-".to_owned(), |path| path.display().to_string());
        instances.add_row([&i.id, &i.name, &i.kind, &i.zone, &i.ipv4, &netns]);
    }
    format!(
        "{}  {}  endpoint {}  signatures {}\nVPC namespace {}\n\n{}\n\n{}\n",
        status.name,
        all.vpc,
        status.endpoint,
        switch(status.auth),
        status.vpc_netns.display(),
        subnets.trim_fmt(),
        instances.trim_fmt()
    )
}

fn switch(on: bool) -> &'static str {
    if on { "checked" } else { "not checked" }
}

/// All ENIs.
pub(super) fn enis(enis: &[EniLine]) -> String {
    let mut lines = table(&[
        "ENI",
        "MAC",
        "STATUS",
        "INSTANCE",
        "INDEX",
        "ADDRESSES",
        "GROUPS",
        "DROPPED",
        "DESCRIPTION",
    ]);
    for e in enis {
        let index = e.device_index.map_or_else(|| "-".to_owned(), |index| index.to_string());
        let instance = e.instance.as_deref().unwrap_or("-");
        let addresses = e.addresses.join(" ");
        let (groups, dropped) = (e.groups.join(" "), e.drops.map_or_else(|| "-".to_owned(), dropped));
        let row = [&e.id, &e.mac, &e.status, instance, &index, &addresses, &groups, &dropped, &e.description];
        lines.add_row(row);
    }
    lines.trim_fmt()
}

/// Only what is not nothing: a reader looks for the one that is stuck.
fn dropped(drops: Drops) -> String {
    let Drops { denied_in, denied_out, spoofed, misdirected } = drops;
    let all = [("in", denied_in), ("out", denied_out), ("spoofed", spoofed), ("misdirected", misdirected)];
    let some: Vec<_> = all.iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{what}:{n}")).collect();
    if some.is_empty() { "0".to_owned() } else { some.join(" ") }
}
