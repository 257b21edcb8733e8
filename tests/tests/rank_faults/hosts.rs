//! Two machines, emulated by network namespaces of this one that are connected by a veth pair.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::job::succeeds;

/// Their addresses; every pair of machines has its own network.
const ADDRESSES: [&str; 2] = ["10.77.0.1", "10.77.0.2"];

/// A pair of machines, `hosta` and `hostb`.
pub(crate) struct Hosts {
    names: [String; 2],
    folder: PathBuf,
}

impl Hosts {
    /// Creates a pair; `None` without permission for namespaces. The files for MPI's launcher are written to `folder`.
    pub(crate) fn new(folder: &Path) -> Option<Self> {
        static PAIRS: AtomicU32 = AtomicU32::new(0);
        let pair = format!("e{}n{}", std::process::id(), PAIRS.fetch_add(1, Ordering::Relaxed));
        let hosts = Self { names: [format!("{pair}a"), format!("{pair}b")], folder: folder.into() };
        hosts.create().then(|| {
            hosts.write_mpi_files();
            hosts
        })
    }

    fn create(&self) -> bool {
        let [a, b] = &self.names;
        let ip = |args: &[&str]| succeeds("ip", args);
        let link = ["link", "add", a, "netns", a, "type", "veth", "peer", "name", b, "netns", b];
        let set_up = |(name, address): (&String, &&str)| {
            ip(&["-n", name, "address", "add", &format!("{address}/24"), "dev", name])
                && ip(&["-n", name, "link", "set", "lo", "up"])
                && ip(&["-n", name, "link", "set", name, "up"])
                && ip(&["-n", name, "route", "add", "default", "dev", name])
        };
        ip(&["netns", "add", a])
            && ip(&["netns", "add", b])
            && ip(&link)
            && self.names.iter().zip(&ADDRESSES).all(set_up)
    }

    /// Writes the hostfile, and the agent that starts programs on the other machine.
    fn write_mpi_files(&self) {
        let lines = ADDRESSES.map(|address| format!("{address} slots=1\n"));
        fs::write(self.hostfile(), lines.concat()).unwrap();
        let agent = format!(
            "#!/bin/sh\nshift\nexec ip netns exec {} unshare --uts sh -c \"hostname hostb; $*\"\n",
            self.names[1]
        );
        fs::write(self.agent(), agent).unwrap();
        assert!(succeeds("chmod", &["+x", &self.agent()]));
    }

    pub(crate) fn hostfile(&self) -> String {
        self.folder.join("hosts").display().to_string()
    }

    /// The replacement for `ssh`.
    pub(crate) fn agent(&self) -> String {
        self.folder.join("agent.sh").display().to_string()
    }

    /// A command that runs `program` on `hosta`, in the same process.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[0], "unshare", "--uts", "sh", "-c"]);
        command.args(["hostname hosta; exec \"$@\"", "sh"]).arg(program);
        command.env("OMPI_MCA_plm_rsh_agent", self.agent());
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        command
    }

    /// Cuts the link: packets are lost silently.
    pub(crate) fn cut(&self) {
        let name = &self.names[1];
        assert!(succeeds("ip", &["-n", name, "link", "set", name, "down"]));
    }

    /// Limits the bandwidth to `kbit` kbit/s in both directions.
    pub(crate) fn slow(&self, kbit: u32) {
        let rate = format!("{kbit}kbit");
        for name in &self.names {
            let limit = ["tbf", "rate", &rate, "burst", "4kb", "latency", "200ms"];
            let args = [&["-n", name, "qdisc", "add", "dev", name, "root"], &limit[..]].concat();
            assert!(succeeds("tc", &args), "{args:?}");
        }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.names {
            succeeds("ip", &["netns", "delete", name]);
        }
    }
}
