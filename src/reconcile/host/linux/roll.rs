//! One container takes over from another: started beside it, led to when it is well, and taken back when it is not.
//!
//! ```text
//!  create new ─▶ wait until it is well ─▶ lead to it ─▶ watch it ─▶ old one's connections end ─▶ remove old
//!       └──────────────┴─── it is not: remove new ◀── lead back ◀──┘
//! ```
//!
//! Killed anywhere, what is there says how far it came, and the next run goes on.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::LinuxHost;
use super::orders::Orders;
use crate::model::Condition;
use crate::plan::{DesiredContainer, DesiredNat, Endpoint, Kind, Label, Zone};
use crate::reconcile::host::{Doing, HostError};
use crate::reconcile::step::{AdjustContainer, LinksOf, Reactions, Roll};
use crate::runtime::net::Flows;

/// Between two looks at the connections that are left. The connection tracker can be watched, but its events cost every
/// connection of the host; a look costs only while one container drains.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl LinuxHost {
    pub(super) async fn roll(&self, roll: Roll) -> Result<(), HostError> {
        let new = roll.desired.instance.clone();
        let before = Orders::of(&self.stack_folder()).load();
        let names = self.observe_resolver().and_then(|resolver| resolver.zone);
        if let Err(error) = self.take_over(&roll).await {
            // What it was led to before, if it came so far.
            if let Some(before) = before {
                self.lead_by(before).await?;
            }
            if let Some(names) = names.filter(|names| names.has(&roll.old)) {
                self.name_by(&new, &roll.old, &names).await?;
            }
            self.remove_container(&new, LinksOf::Deleted).await?;
            return Err(taken_back(error, &new, &roll.old));
        }
        let addresses = self.addresses_of(&roll.old);
        self.drain(&addresses, roll.desired.update.drain).await?;
        self.remove_container(&roll.old, LinksOf::Deleted).await?;
        // Answers that were under way when their flow was forgotten have begun flows of their own.
        self.forget_datagrams(&addresses).await
    }

    async fn take_over(&self, roll: &Roll) -> Result<(), HostError> {
        let Roll { desired, old, nat, zone } = roll;
        let new = &desired.instance;
        if self.runs_as(desired)? {
            // Its peers may have come by other addresses since it was made, and the file may say otherwise.
            self.adjust_container(AdjustContainer {
                desired: desired.clone(),
                limits: true,
                settings: true,
                hosts: true,
                links: Vec::new(),
                contents: Vec::new(),
                reactions: Reactions::default(),
            })
            .await?;
        } else {
            self.remove_container(new, LinksOf::Deleted).await?;
            self.create_container(desired.clone()).await?;
        }
        let monitor = desired.update.monitor;
        match desired.live.health {
            Some(_) => self.reached_at_first_try(new, Condition::Healthy).await?,
            None => self.stays_well(new, monitor).await?,
        }
        if let Some(nat) = nat {
            let told = Orders::of(&self.stack_folder()).load().unwrap_or_else(|| nat.clone());
            self.lead_by(told.moved(old, new, nat)).await?;
        }
        if let Some(zone) = zone {
            self.name_by(old, new, zone).await?;
        }
        match desired.live.health {
            Some(_) => self.stays_well(new, monitor).await,
            None => Ok(()),
        }
    }

    /// Whether an earlier run made it already, of the same spec.
    fn runs_as(&self, desired: &DesiredContainer) -> Result<bool, HostError> {
        let Some(group) = self.open_cgroup(&self.cgroup_path(&desired.spec.cgroup)?)? else { return Ok(false) };
        let label: Option<Label> = self.observe_group(&group)?.0;
        let is_it = label.is_some_and(|label| label.kind == Kind::Container && label.digest == desired.digest());
        Ok(is_it && self.monitor_of(&desired.instance).is_ok())
    }

    /// Makes the table lead where it is told from now on.
    async fn lead_by(&self, told: DesiredNat) -> Result<(), HostError> {
        self.blocking(move |host| {
            let orders = Orders::of(&host.stack_folder());
            let _turn = orders.lock().doing(|| "wait for others who change the table")?;
            orders.save(&told).doing(|| "write down where ports lead")?;
            let nft = host.nft().doing(|| "speak to nftables")?;
            orders.carry_out(nft, &host.table_name(), &told)
        })
        .await
    }

    /// Has the resolver name instance `to`, as `zone` has it, where it named `from`.
    async fn name_by(&self, from: &str, to: &str, zone: &Zone) -> Result<(), HostError> {
        let _turn = self.naming.lock().await;
        let told = self.observe_resolver().and_then(|resolver| resolver.zone);
        let told = told.map_or_else(|| zone.clone(), |told| told.moved(from, to, zone));
        self.run_resolver(told).await
    }

    fn addresses_of(&self, instance: &str) -> Vec<IpAddr> {
        let stored = self.stored(instance);
        stored.iter().flat_map(|stored| &stored.spec.endpoints).flat_map(Endpoint::addresses).collect()
    }

    /// Waits until no connection leads to these addresses any more, or the time is over.
    async fn drain(&self, addresses: &[IpAddr], within: Duration) -> Result<(), HostError> {
        let begun = Instant::now();
        while begun.elapsed() < within {
            let addresses = addresses.to_vec();
            let left = self.blocking(move |_| count_connections(&addresses)).await?;
            if left == 0 {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN.min(within.saturating_sub(begun.elapsed()))).await;
        }
        Ok(())
    }

    async fn forget_datagrams(&self, addresses: &[IpAddr]) -> Result<(), HostError> {
        let addresses = addresses.to_vec();
        self.blocking(move |_| {
            let doing = || "forget the flows of datagrams to a container that went";
            let flows = Flows::open().doing(doing)?;
            addresses.iter().try_for_each(|address| flows.forget_datagrams(*address).map(drop)).doing(doing)
        })
        .await
    }
}

fn count_connections(addresses: &[IpAddr]) -> Result<usize, HostError> {
    let doing = || "count the connections that are left";
    let flows = Flows::open().doing(doing)?;
    addresses.iter().try_fold(0, |count, address| Ok(count + flows.open_connections(*address).doing(doing)?))
}

/// Says that the new one is gone and the old one serves.
fn taken_back(error: HostError, new: &str, old: &str) -> HostError {
    let told = format!("`{new}` was taken back, and `{old}` goes on serving");
    match error {
        HostError::Condition { message, tail } => HostError::Condition { message: format!("{message}; {told}"), tail },
        other => HostError::Said(format!("{}; {told}", other.chain())),
    }
}
