//! nftables without a program: one table of family `inet` per owner, written as a whole in one transaction and read
//! back in the same form.
//!
//! A table belongs to us alone and is found by its name; nothing outside of it is read or touched. Its label stands in
//! its comment, written in the transaction that writes the rest, so that a table is either whole or not there.
//!
//! `ruleset` holds the types, `encode` and `decode` the way to and from the wire, `difference` the comparison.

mod decode;
mod difference;
mod encode;
mod ruleset;
mod typeof_data;

use std::collections::BTreeMap;

use nix::errno::Errno;

use self::encode::{Acknowledge, ElementChange, MessageType, NFPROTO_INET, push_head};
use super::conntrack::forget_udp_flows;
use super::nat::NatPortMapping;
use super::netlink::{Batch, Family, NetlinkError, Request, Socket};

pub use difference::{NatDifference, differences};
pub use ruleset::{
    BaseChain, Chain, Expression, FieldType, FieldTypes, Hook, Inverted, Policy, Register, Rule, Ruleset, Set, TURNS,
};

/// The longest comment of a table or of a rule, in bytes: its length with a NUL has to fit 8 bits, and the kernel
/// allows 256 bytes of user data.
pub const MAX_COMMENT: usize = 253;
/// The longest table name that we write, in bytes. The kernel allows 255; user data and messages stay small.
pub const MAX_TABLE_NAME: usize = 128;

/// What went wrong with an nftables table.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    #[error("cannot speak to nftables")]
    Open { source: NetlinkError },
    #[error("cannot write nftables table `{table}`")]
    Write { table: String, source: NetlinkError },
    #[error("cannot read nftables table `{table}`")]
    Read { table: String, source: NetlinkError },
    #[error("cannot list the nftables tables")]
    List { source: NetlinkError },
    #[error("cannot forget the UDP flows of published ports")]
    Flows { source: NetlinkError },
    #[error("`{name}` cannot name an nftables table: a letter, then up to 127 of letters, digits, `_`, `-` and `.`")]
    Name { name: String },
    #[error("a comment in nftables table `{table}` is longer than {MAX_COMMENT} bytes: `{comment}`")]
    Comment { table: String, comment: String },
}

/// A table as the kernel holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedTable {
    /// The table's comment.
    pub label: Option<String>,
    /// A dormant table is whole and does nothing.
    pub state: TableState,
    pub ruleset: Ruleset,
}

/// Whether the kernel heeds a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableState {
    Active,
    Dormant,
}

/// A table of family `inet`, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledTable {
    pub name: String,
    /// The table's comment.
    pub label: Option<String>,
}

/// Whether there is a table of that name to be deleted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Old {
    Present,
    Absent,
}

/// A change of some elements of one set or map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ElementsChange {
    /// The set's or map's name.
    pub set: String,
    /// Keys that go, with their values where it is a map.
    pub removed: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Elements that come; after the removals, so that a key may be in both.
    pub added: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// nftables of one network namespace.
///
/// Keep one for a whole run and drop it last: after a transaction that deleted something, closing the socket waits until
/// all processors have let go of what was deleted (some 10 ms), as closing any netfilter socket of the host does then.
#[derive(Debug)]
pub struct Nft {
    socket: Socket,
}

impl Nft {
    /// Opens a socket in the calling thread's network namespace. All calls are synchronous: the kernel answers while
    /// it is asked.
    pub fn open() -> Result<Self, NftError> {
        let socket = Socket::open(Family::Netfilter).map_err(|source| NftError::Open { source })?;
        Ok(Self { socket })
    }

    /// Replaces the table, label and content, in one transaction: packets see the old one or the new one. Connections
    /// that are translated already stay so.
    pub fn replace_table(&self, table: &str, ruleset: &Ruleset, label: &str) -> Result<(), NftError> {
        check_name(table)?;
        let comments = ruleset.rules.iter().map(|rule| rule.name.as_str()).chain([label]);
        if let Some(comment) = comments.into_iter().find(|comment| comment.len() > MAX_COMMENT) {
            return Err(NftError::Comment { table: table.to_owned(), comment: comment.to_owned() });
        }
        let replacement = |old: Old| {
            encode::transaction(|batch| {
                if old == Old::Present {
                    encode::push_table_gone(batch, table, Acknowledge::No);
                }
                encode::push_table(batch, table, label);
                encode::push_ruleset(batch, table, ruleset);
                encode::push_acknowledged_table(batch, table);
            })
        };
        // Whatever is deleted, even a table that never was, makes the kernel wait before the socket can be closed.
        if self.head(table)?.is_none() {
            match self.write(table, &replacement(Old::Absent)) {
                Err(NftError::Write { source, .. }) if source.errno() == Some(Errno::EEXIST) => {}
                result => return result,
            }
        }
        self.write(table, &replacement(Old::Present))
    }

    /// Changes elements of sets and maps in one transaction, the rest of the table untouched: how a published port moves
    /// from one container to another. Fails as a whole if the table, a set or a removed key is not there.
    pub fn change_elements(&self, table: &str, changes: &[ElementsChange]) -> Result<(), NftError> {
        check_name(table)?;
        if changes.iter().all(|change| change.removed.is_empty() && change.added.is_empty()) {
            return Ok(());
        }
        let batch = encode::transaction(|batch| {
            for change in changes {
                let whole = [(MessageType::DeleteElements, &change.removed), (MessageType::NewElements, &change.added)];
                for (kind, elements) in whole {
                    let elements: Vec<_> = elements.iter().map(|(key, value)| (&key[..], &value[..])).collect();
                    encode::push_elements(batch, &ElementChange { kind, table, set: &change.set }, &elements);
                }
            }
            encode::push_acknowledged_table(batch, table);
        });
        self.write(table, &batch)
    }

    /// Deletes the table; one that is not there is no error.
    pub fn delete_table(&self, table: &str) -> Result<(), NftError> {
        check_name(table)?;
        self.write(table, &encode::transaction(|batch| encode::push_table_gone(batch, table, Acknowledge::Yes)))
    }

    /// All tables of family `inet`, ours and others'.
    pub fn list_tables(&self) -> Result<Vec<LabelledTable>, NftError> {
        let request = Request { kind: MessageType::GetTable.number(), flags: 0, what: "list the nftables tables" };
        self.socket
            .dump(&request, inet_head, |tables: &mut Vec<_>, payload| {
                tables.extend(decode::table(payload).map(|head| LabelledTable { name: head.name, label: head.label }));
            })
            .map_err(|source| NftError::List { source })
    }

    /// Reads a table back; `None` if there is none of that name. It is read in parts, and the kernel does not say of each
    /// whether a transaction came in between: so it is read again where one did. Of a host whose tables change without a
    /// pause the last reading is taken.
    pub fn observe(&self, table: &str) -> Result<Option<ObservedTable>, NftError> {
        const ATTEMPTS: usize = 8;
        check_name(table)?;
        let mut before = self.generation(table)?;
        let mut read = self.read(table)?;
        for _ in 1..ATTEMPTS {
            let after = self.generation(table)?;
            if after == before {
                break;
            }
            (before, read) = (after, self.read(table)?);
        }
        Ok(read)
    }

    fn generation(&self, table: &str) -> Result<u32, NftError> {
        let request =
            Request { kind: MessageType::GetGeneration.number(), flags: 0, what: "ask for the tables' state" };
        let read = |source| NftError::Read { table: table.to_owned(), source };
        self.socket.get(&request, inet_head, decode::generation).map_err(read)
    }

    fn read(&self, table: &str) -> Result<Option<ObservedTable>, NftError> {
        let read = |source| NftError::Read { table: table.to_owned(), source };
        let Some(head) = self.head(table)? else { return Ok(None) };
        let ruleset = Ruleset {
            chains: self.chains(table).map_err(read)?,
            sets: self.sets(table).map_err(read)?,
            rules: self.rules(table).map_err(read)?,
        };
        // NFT_TABLE_F_DORMANT
        let state = if head.flags & 1 != 0 { TableState::Dormant } else { TableState::Active };
        Ok(Some(ObservedTable { label: head.label, state, ruleset }))
    }

    /// Forgets the UDP flows that were addressed to these published ports: those that lead to a mapping's target, and those
    /// that were begun before the port was published and reached the host itself. The next packet of each is looked up
    /// anew.
    ///
    /// To be called after the table was changed, with the mappings that came, went or changed. Returns how many flows
    /// were forgotten. Mappings of other protocols are passed over.
    pub fn forget_udp_flows(&self, mappings: &[NatPortMapping]) -> Result<usize, NftError> {
        forget_udp_flows(&self.socket, mappings).map_err(|source| NftError::Flows { source })
    }

    fn head(&self, table: &str) -> Result<Option<decode::TableHead>, NftError> {
        let what = format!("read nftables table `{table}`");
        let request = Request { kind: MessageType::GetTable.number(), flags: 0, what: &what };
        match self.socket.get(&request, |bytes| table_head(bytes, table), decode::table) {
            Ok(head) => Ok(Some(head)),
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(None),
            Err(source) => Err(NftError::Read { table: table.to_owned(), source }),
        }
    }

    fn chains(&self, table: &str) -> Result<Vec<Chain>, NetlinkError> {
        let request = Request { kind: MessageType::GetChain.number(), flags: 0, what: "list the nftables chains" };
        // The kernel lists the chains of all tables.
        self.socket.dump(&request, inet_head, |chains: &mut Vec<_>, payload| {
            chains.extend(decode::chain(payload).filter(|(owner, _)| owner == table).map(|(_, chain)| chain));
        })
    }

    fn sets(&self, table: &str) -> Result<Vec<Set>, NetlinkError> {
        let request = Request { kind: MessageType::GetSet.number(), flags: 0, what: "list the nftables sets" };
        let mut sets: Vec<Set> = self.socket.dump(
            &request,
            |bytes| table_head(bytes, table),
            |sets: &mut Vec<_>, payload| sets.extend(decode::set(payload)),
        )?;
        for set in &mut sets {
            let request =
                Request { kind: MessageType::GetElements.number(), flags: 0, what: "list the elements of a set" };
            let fill = |bytes: &mut Vec<u8>| {
                push_head(bytes, NFPROTO_INET);
                netlink_bindings::nftables::PushSetelemListAttrs::new(bytes)
                    .push_table_bytes(table.as_bytes())
                    .push_set_bytes(set.name.as_bytes())
                    .end_nested();
            };
            set.elements = self.socket.dump(&request, fill, |elements: &mut BTreeMap<_, _>, payload| {
                elements.extend(decode::elements(payload));
            })?;
        }
        Ok(sets)
    }

    fn rules(&self, table: &str) -> Result<Vec<Rule>, NetlinkError> {
        let request = Request { kind: MessageType::GetRule.number(), flags: 0, what: "list the nftables rules" };
        self.socket.dump(
            &request,
            |bytes| table_head(bytes, table),
            |rules: &mut Vec<_>, payload| rules.extend(decode::rule(payload)),
        )
    }

    fn write(&self, table: &str, batch: &Batch) -> Result<(), NftError> {
        self.socket.transact(batch).map_err(|source| NftError::Write { table: table.to_owned(), source })
    }
}

fn inet_head(bytes: &mut Vec<u8>) {
    push_head(bytes, NFPROTO_INET);
}

/// The head and the table's name, which is the first attribute of every object of a table.
fn table_head(bytes: &mut Vec<u8>, table: &str) {
    push_head(bytes, NFPROTO_INET);
    netlink_bindings::nftables::PushTableAttrs::new(bytes).push_name_bytes(table.as_bytes()).end_nested();
}

/// Names that the `nft` program can be told too: an owner must be able to look at a table and to delete it.
fn check_name(name: &str) -> Result<(), NftError> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let fits = name.len() <= MAX_TABLE_NAME
        && name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
        && name.bytes().all(inner);
    if fits { Ok(()) } else { Err(NftError::Name { name: name.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_named_so_that_nft_can_name_it_too() {
        for name in ["stack_a-b", "stack_a_b", "t"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "-x", "a b", "a\"b", "1a", &"x".repeat(129)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
