//! Validates that the joining ranks form the configured job.

use super::RendezvousFault;
use super::message::Hello;

/// The ranks that have joined so far, compared with rank 0.
#[derive(Debug)]
pub(crate) struct Roster {
    rank_0: Hello,
    members: Vec<Option<Hello>>,
    faults: Vec<RendezvousFault>,
}

impl Roster {
    pub(crate) fn new(rank_0: Hello) -> Self {
        let members = vec![None; rank_0.world_size];
        Self { rank_0, members, faults: Vec::new() }
    }

    /// Adds a rank and records its faults. Returns whether it is a member now.
    pub(crate) fn add(&mut self, hello: Hello) -> bool {
        let Some(member) = self.members.get(hello.rank) else {
            self.faults.push(RendezvousFault::OutOfRange {
                rank: hello.rank,
                process: process(&hello),
                world_size: self.members.len(),
            });
            return false;
        };
        if let Some(first) = member {
            let (first, second) = (process(first), process(&hello));
            self.faults.push(RendezvousFault::Duplicate { rank: hello.rank, first, second });
            return false;
        }
        self.faults.extend(differences(&hello, &self.rank_0));
        let rank = hello.rank;
        self.members[rank] = Some(hello);
        true
    }

    /// Removes a rank that disconnected; it may join again.
    pub(crate) fn remove(&mut self, rank: usize) {
        if let Some(member) = self.members.get_mut(rank) {
            *member = None;
        }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.members.iter().all(Option::is_some)
    }

    pub(crate) fn has_faults(&self) -> bool {
        !self.faults.is_empty()
    }

    pub(crate) fn missing(&self) -> Vec<usize> {
        let members = self.members.iter().enumerate();
        members.filter(|(_, member)| member.is_none()).map(|(rank, _)| rank).collect()
    }

    pub(crate) fn into_faults(self) -> Vec<RendezvousFault> {
        self.faults
    }

    /// The hosts of the ranks, in order.
    pub(crate) fn hosts(&self) -> Vec<String> {
        let host =
            |member: &Option<Hello>| member.as_ref().map_or_else(String::new, |it| it.host.clone());
        self.members.iter().map(host).collect()
    }
}

fn process(hello: &Hello) -> String {
    format!("process {} on `{}`", hello.pid, hello.host)
}

fn differences(hello: &Hello, rank_0: &Hello) -> Vec<RendezvousFault> {
    let differs = |what: String, has: Option<String>, rank_0: Option<String>| {
        RendezvousFault::Mismatch { rank: hello.rank, host: hello.host.clone(), what, has, rank_0 }
    };
    let mut faults = Vec::new();
    let sizes = [hello.world_size, rank_0.world_size].map(|size| size.to_string());
    let versions = [hello.version.clone(), rank_0.version.clone()];
    for (what, [here, there]) in [("world size", sizes), ("version", versions)] {
        if here != there {
            faults.push(differs(what.into(), Some(here), Some(there)));
        }
    }
    let names: std::collections::BTreeSet<_> =
        hello.settings.keys().chain(rank_0.settings.keys()).collect();
    for name in names {
        let (here, there) = (hello.settings.get(name), rank_0.settings.get(name));
        if here != there {
            faults.push(differs(format!("`{name}`"), here.cloned(), there.cloned()));
        }
    }
    if faults.is_empty() && hello.digest != rank_0.digest {
        let [here, there] = [&hello.digest, &rank_0.digest].map(|digest| Some(digest.clone()));
        faults.push(differs("settings digest".into(), here, there));
    }
    faults
}
