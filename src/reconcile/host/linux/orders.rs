//! What a stack's table was told to lead to, kept beside the bundles, and the table made to follow: by a run that moves a port
//! from one container to another, and by a container's monitor when its health turns.
//!
//! What was told decides nothing about what should be. It is there because a monitor knows no stack file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::container::read_bounded;
use super::nat::table;
use crate::monitor::client::{Found, read_status};
use crate::plan::DesiredNat;
use crate::reconcile::host::{Doing, HostError};
use crate::runtime::net::{ElementsChange, Flows, Nft, Ruleset, SPREAD, Set, in_netns};

/// Names beginning with a dot are no instance's.
const TOLD: &str = ".nat.json";
const LOCK: &str = ".nat.lock";

/// The orders of one stack's table.
pub(super) struct Orders {
    folder: PathBuf,
}

impl Orders {
    pub fn of(stack_folder: &Path) -> Self {
        Orders { folder: stack_folder.to_owned() }
    }

    /// Keeps others from changing the table at the same time. Held for one transaction only.
    pub fn lock(&self) -> io::Result<File> {
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(self.folder.join(LOCK))?;
        file.lock()?;
        Ok(file)
    }

    /// `None` where nothing was told, or by a version of this program that speaks otherwise.
    pub fn load(&self) -> Option<DesiredNat> {
        serde_json::from_slice(&read_bounded(&self.folder.join(TOLD)).ok()?).ok()
    }

    pub fn save(&self, nat: &DesiredNat) -> io::Result<()> {
        let new = self.folder.join(format!("{TOLD}.new"));
        fs::write(&new, serde_json::to_vec(nat)?)?;
        fs::rename(&new, self.folder.join(TOLD))
    }

    pub fn forget(&self) {
        for name in [TOLD, LOCK] {
            let _ = fs::remove_file(self.folder.join(name));
        }
    }

    /// What ports and services lead to at this moment.
    pub fn served(&self, nat: &DesiredNat) -> DesiredNat {
        self.served_without(nat, None)
    }

    fn served_without(&self, nat: &DesiredNat, leaving: Option<&str>) -> DesiredNat {
        let mut serving: BTreeMap<&str, bool> = BTreeMap::new();
        let instances = nat.ports.iter().map(|port| &port.instance).chain(nat.services.iter().map(|s| &s.instance));
        for instance in instances {
            serving.entry(instance).or_insert_with(|| serves(&self.folder.join(instance)));
        }
        nat.served_by(|instance| Some(instance) != leaving && serving.get(instance) == Some(&true))
    }

    /// Makes the elements of the table be what was told, as far as instances serve. The lock is held.
    pub fn carry_out(&self, nft: &Nft, table_name: &str, nat: &DesiredNat) -> Result<(), HostError> {
        self.write(nft, table_name, &self.served(nat))
    }

    fn write(&self, nft: &Nft, table_name: &str, nat: &DesiredNat) -> Result<(), HostError> {
        let doing = || "change where ports lead";
        let Some(held) = nft.observe(table_name).doing(doing)? else {
            return Err(HostError::Said(format!("nftables table `{table_name}` went away")));
        };
        let wanted = table(nat).ruleset();
        let changes = element_changes(&held.ruleset, &wanted);
        nft.change_elements(table_name, &changes).doing(doing)?;
        // A flow of datagrams stays where it is for as long as its client is not silent.
        let gone = addresses_gone(&changes, &wanted);
        if !gone.is_empty() {
            let flows = Flows::open().doing(doing)?;
            for address in gone {
                flows.forget_datagrams(address).doing(|| format!("forget the flows of datagrams to {address}"))?;
            }
        }
        Ok(())
    }
}

fn serves(bundle: &Path) -> bool {
    matches!(read_status(bundle), Ok(Found::Watched(status)) if status.serves())
}

/// The elements of maps in which two rulesets differ.
fn element_changes(held: &Ruleset, wanted: &Ruleset) -> Vec<ElementsChange> {
    let empty = BTreeMap::new();
    let of =
        |set: &Set| held.sets.iter().find(|held| held.name == set.name).map_or(&empty, |held| &held.elements).clone();
    let differing = |from: &BTreeMap<Vec<u8>, Vec<u8>>, to: &BTreeMap<Vec<u8>, Vec<u8>>| {
        let differs = |(key, value): &(&Vec<u8>, &Vec<u8>)| to.get(*key) != Some(value);
        from.iter().filter(differs).map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    wanted
        .sets
        .iter()
        .filter(|set| set.value.is_some())
        .map(|set| {
            let held = of(set);
            ElementsChange {
                set: set.name.clone(),
                removed: differing(&held, &set.elements),
                added: differing(&set.elements, &held),
            }
        })
        .collect()
}

/// Addresses that elements led to and none leads to any more.
fn addresses_gone(changes: &[ElementsChange], wanted: &Ruleset) -> BTreeSet<IpAddr> {
    let still: BTreeSet<IpAddr> = wanted
        .sets
        .iter()
        .filter(|set| is_led(&set.name))
        .flat_map(|set| set.elements.values())
        .filter_map(address)
        .collect();
    changes
        .iter()
        .filter(|change| is_led(&change.set))
        .flat_map(|change| change.removed.values())
        .filter_map(address)
        .filter(|address| !still.contains(address))
        .collect()
}

/// Whether the values of a map are addresses.
fn is_led(map: &str) -> bool {
    !SPREAD.iter().any(|(.., ports)| *ports == map)
}

/// The address in the value of a map, a port behind it or not.
fn address(value: &Vec<u8>) -> Option<IpAddr> {
    match value.len() {
        4 | 8 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(&value[..4]).ok()?).into()),
        16 | 20 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(&value[..16]).ok()?).into()),
        _ => None,
    }
}

/// Runs as the helper that a monitor calls when its container began or ceased to serve: makes the stack's table lead to those
/// who serve, and ends. `leaves`: its container is about to be stopped. The
/// descriptor is of the host's network namespace, for the monitor lives in its container's.
pub fn turn(bundle: &Path, leaves: bool, netns: OwnedFd) -> ExitCode {
    let Some((folder, instance)) = bundle.parent().zip(bundle.file_name().and_then(|name| name.to_str())) else {
        return ExitCode::from(64);
    };
    let orders = Orders::of(folder);
    let Some(stack) = folder.file_name().and_then(|name| name.to_str()) else { return ExitCode::from(64) };
    let work = || -> Result<(), HostError> {
        // The one who takes the table away takes the orders too.
        let Some(_) = orders.load() else { return Ok(()) };
        let _turn = orders.lock().doing(|| "wait for others who change the table")?;
        let Some(told) = orders.load() else { return Ok(()) };
        let leaving = Some(instance).filter(|_| leaves);
        let nat = orders.served_without(&told, leaving);
        let nft = Nft::open().doing(|| "speak to nftables")?;
        orders.write(&nft, &format!("stack_{stack}"), &nat)
    };
    // There is nobody to tell: the next run of `up` sees what the table holds.
    match in_netns(netns, || work().is_ok()) {
        Ok(true) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
