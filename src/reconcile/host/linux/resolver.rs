//! The stack's resolver: two processes, and a folder beside the bundles.

use std::path::PathBuf;

use super::LinuxHost;
use super::container::{make_private_folder, remove_tree};
use crate::plan::Zone;
use crate::reconcile::actual::ActualResolver;
use crate::reconcile::host::{Doing, HostError};
use crate::resolver::client;
use crate::resolver::spec::ResolverSpec;

impl LinuxHost {
    fn resolver_folder(&self) -> PathBuf {
        self.stack_folder().join(client::FOLDER)
    }

    pub(super) fn observe_resolver(&self) -> Option<ActualResolver> {
        let found = client::find(&self.resolver_folder())?;
        Some(ActualResolver { zone: found.zone, runs: found.runs })
    }

    pub(super) async fn run_resolver(&self, zone: Zone) -> Result<(), HostError> {
        let folder = self.resolver_folder();
        make_private_folder(&folder)?;
        let spec =
            ResolverSpec { zone, resolv_conf: self.roots.etc.join("resolv.conf"), cgroup_procs: self.monitor_procs()? };
        client::run(self.launcher().await?, &folder, &spec).await.doing(|| "start the resolver")
    }

    pub(super) async fn remove_resolver(&self) -> Result<(), HostError> {
        let folder = self.resolver_folder();
        client::stop(&folder).await.doing(|| "stop the resolver")?;
        self.blocking(move |_| remove_tree(&folder)).await
    }
}
