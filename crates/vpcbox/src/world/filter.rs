//! What security groups and source/destination checks mean for the fabric: from the state to a [`Filter`].

use super::{
    groups::{Direction, Group},
    state::{Eni, State},
};
use crate::fabric::filter::{Allow, EniFilter, Filter, Peer};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// The filter of these ENIs. A rule that names a group means the addresses of those of them that are in the group: an ENI that is
/// attached nowhere has nothing to say.
pub(super) fn filter(state: &State, attached: &[&Eni]) -> Filter {
    let enis: BTreeMap<_, _> = attached.iter().map(|eni| (eni.id.to_string(), of_eni(state, eni))).collect();
    let named: BTreeSet<&str> = enis
        .values()
        .flat_map(|eni| eni.ingress.iter().chain(&eni.egress))
        .filter_map(|allow| if let Peer::Group(id) = &allow.peer { Some(id.as_str()) } else { None })
        .collect();
    let members = |id: &str| -> BTreeSet<IpAddr> {
        let members = attached.iter().filter(|eni| eni.groups.iter().any(|g| g.as_str() == id));
        members.flat_map(|eni| eni.addresses()).collect()
    };
    let groups = named.into_iter().map(|id| (id.to_owned(), members(id))).collect();
    Filter { enis, groups }
}

fn of_eni(state: &State, eni: &Eni) -> EniFilter {
    let groups: Vec<&Group> = eni.groups.iter().filter_map(|id| state.groups.get(id)).map(|g| &**g).collect();
    let allowed = |direction| -> BTreeSet<Allow> {
        groups.iter().flat_map(|group| group.of(direction)).map(|rule| rule.terms.allow()).collect()
    };
    EniFilter {
        mac: eni.mac.0,
        addresses: eni.addresses().collect(),
        source_dest_check: eni.source_dest_check,
        ingress: allowed(Direction::Ingress),
        egress: allowed(Direction::Egress),
    }
}
