//! A [`Ruleset`] as the messages of one nftables transaction.

use netlink_bindings::nftables::{
    PushChainAttrs, PushDataAttrs, PushExprAttrs, PushExprListAttrs, PushRuleAttrs, PushSetAttrs, PushSetelemListAttrs,
    PushTableAttrs,
};
use netlink_bindings::traits::Pusher;

use super::ruleset::{Chain, Expression, FieldType, FieldTypes, Inverted, Policy, Rule, Ruleset, Set};
use super::typeof_data::typeof_data;
use crate::runtime::net::netlink::{Batch, NLM_F_ACK, NLM_F_CREATE, Request};

/// `NFNL_SUBSYS_NFTABLES`, the high byte of every message type.
pub(super) const SUBSYSTEM: u16 = 10;
pub(super) const NFPROTO_INET: u8 = 1;
/// `NFT_SET_MAP`.
pub(super) const SET_IS_MAP: u32 = 8;
/// `NFTA_LOOKUP_*`. By hand: the codec numbers the attributes of a lookup in another order than `nf_tables.h`.
pub(super) const LOOKUP_SET: u16 = 1;
pub(super) const LOOKUP_KEY: u16 = 2;
pub(super) const LOOKUP_INTO: u16 = 3;
pub(super) const LOOKUP_FLAGS: u16 = 5;
/// `NFT_LOOKUP_F_INV`.
pub(super) const LOOKUP_INVERTED: u32 = 1;
/// The most elements in one message: the length of the attribute around them has 16 bits.
const ELEMENTS_PER_MESSAGE: usize = 900;
/// The type of a comment in the user data of a table and of a rule, as the `nft` program writes it.
pub(super) const COMMENT: u8 = 0;
/// The register that holds a verdict.
pub(super) const VERDICT_REGISTER: u32 = 0;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_APPEND: u16 = 0x800;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

/// A message type of nftables (`NFT_MSG_*`).
#[derive(Clone, Copy)]
pub(super) enum MessageType {
    NewTable = 0,
    GetTable = 1,
    DeleteTable = 2,
    NewChain = 3,
    GetChain = 4,
    NewRule = 6,
    GetRule = 7,
    NewSet = 9,
    GetSet = 10,
    NewElements = 12,
    GetElements = 13,
    DeleteElements = 14,
    GetGeneration = 16,
}

impl MessageType {
    pub fn number(self) -> u16 {
        SUBSYSTEM << 8 | self as u16
    }
}

/// The fixed head of every nftables message (`struct nfgenmsg`).
pub(super) fn push_head(bytes: &mut Vec<u8>, family: u8) {
    bytes.extend([family, 0, 0, 0]);
}

/// A transaction: what `fill` puts in happens as a whole or not at all.
pub(super) fn transaction(fill: impl FnOnce(&mut Batch)) -> Batch {
    let subsystem = SUBSYSTEM.to_be_bytes();
    let mark = |bytes: &mut Vec<u8>| bytes.extend([0, 0, subsystem[0], subsystem[1]]);
    let mut batch = Batch::new();
    batch.push(&Request { kind: BATCH_BEGIN, flags: 0, what: "commit the change of the nftables table" }, mark);
    fill(&mut batch);
    batch.push(&Request { kind: BATCH_END, flags: 0, what: "commit the change of the nftables table" }, mark);
    batch
}

/// Whether the kernel is to acknowledge a message. In a transaction one acknowledgement, of the last message, is
/// enough; that of the end mark itself works only since Linux 6.10.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Acknowledge {
    Yes,
    No,
}

impl Acknowledge {
    fn flag(self) -> u16 {
        if self == Self::Yes { NLM_F_ACK } else { 0 }
    }
}

/// Deletes the table and whatever it holds; creating it first makes that work where it does not exist.
pub(super) fn push_table_gone(batch: &mut Batch, table: &str, acknowledge: Acknowledge) {
    push_new_table(batch, table, NLM_F_CREATE, None);
    let what = format!("delete nftables table `{table}`");
    let request = Request { kind: MessageType::DeleteTable.number(), flags: acknowledge.flag(), what: &what };
    batch.push(&request, |bytes| {
        push_head(bytes, NFPROTO_INET);
        PushTableAttrs::new(bytes).push_name_bytes(table.as_bytes()).end_nested();
    });
}

/// The table with its label; refused (`EEXIST`) if it is there already.
pub(super) fn push_table(batch: &mut Batch, table: &str, label: &str) {
    push_new_table(batch, table, NLM_F_CREATE | NLM_F_EXCL, Some(label));
}

fn push_new_table(batch: &mut Batch, table: &str, flags: u16, label: Option<&str>) {
    let what = format!("create nftables table `{table}`");
    let request = Request { kind: MessageType::NewTable.number(), flags, what: &what };
    batch.push(&request, |bytes| {
        push_head(bytes, NFPROTO_INET);
        let mut attributes = PushTableAttrs::new(bytes).push_name_bytes(table.as_bytes());
        if let Some(label) = label {
            attributes = attributes.push_userdata(&comment(label));
        }
        attributes.end_nested();
    });
}

/// Chains, then sets with their elements, then the rules that refer to both. The last message asks for an
/// acknowledgement.
pub(super) fn push_ruleset(batch: &mut Batch, table: &str, ruleset: &Ruleset) {
    for chain in &ruleset.chains {
        push_chain(batch, table, chain);
    }
    for (place, set) in ruleset.sets.iter().enumerate() {
        push_set(batch, table, set, place as u32 + 1);
        let elements: Vec<_> = set.elements.iter().map(|(key, value)| (key.as_slice(), value.as_slice())).collect();
        push_elements(batch, &ElementChange { kind: MessageType::NewElements, table, set: &set.name }, &elements);
    }
    for rule in &ruleset.rules {
        push_rule(batch, table, rule);
    }
}

/// An empty request that is acknowledged, to close a transaction with: it names the table once more.
pub(super) fn push_acknowledged_table(batch: &mut Batch, table: &str) {
    let what = format!("replace nftables table `{table}`");
    let request = Request { kind: MessageType::NewTable.number(), flags: NLM_F_CREATE | NLM_F_ACK, what: &what };
    batch.push(&request, |bytes| {
        push_head(bytes, NFPROTO_INET);
        PushTableAttrs::new(bytes).push_name_bytes(table.as_bytes()).end_nested();
    });
}

/// Where elements go, or go from.
pub(super) struct ElementChange<'a> {
    /// [`MessageType::NewElements`] or [`MessageType::DeleteElements`].
    pub kind: MessageType,
    pub table: &'a str,
    pub set: &'a str,
}

pub(super) fn push_elements(batch: &mut Batch, change: &ElementChange<'_>, elements: &[(&[u8], &[u8])]) {
    let what = format!("change the elements of `{}` in nftables table `{}`", change.set, change.table);
    for chunk in elements.chunks(ELEMENTS_PER_MESSAGE) {
        let request = Request { kind: change.kind.number(), flags: NLM_F_CREATE, what: &what };
        batch.push(&request, |bytes| {
            push_head(bytes, NFPROTO_INET);
            let list = PushSetelemListAttrs::new(bytes)
                .push_table_bytes(change.table.as_bytes())
                .push_set_bytes(change.set.as_bytes());
            let mut items = list.nested_elements();
            for (key, value) in chunk {
                let mut item = items.nested_elem().nested_key().push_value(key).end_nested();
                if !value.is_empty() {
                    item = item.nested_data().push_value(value).end_nested();
                }
                items = item.end_nested();
            }
            items.end_nested().end_nested();
        });
    }
}

fn push_chain(batch: &mut Batch, table: &str, chain: &Chain) {
    let what = format!("create chain `{}` in nftables table `{table}`", chain.name);
    let request = Request { kind: MessageType::NewChain.number(), flags: NLM_F_CREATE, what: &what };
    batch.push(&request, |bytes| {
        push_head(bytes, NFPROTO_INET);
        let mut attributes =
            PushChainAttrs::new(bytes).push_table_bytes(table.as_bytes()).push_name_bytes(chain.name.as_bytes());
        if let Some(base) = &chain.base {
            let hook = attributes.nested_hook().push_num(base.hook.number()).push_priority(base.priority);
            let policy = if base.policy == Policy::Drop { 0 } else { 1 };
            attributes = hook.end_nested().push_policy(policy).push_type_bytes(base.kind.as_bytes());
        }
        attributes.end_nested();
    });
}

/// `id` is only needed by the kernel to tell sets of one transaction apart.
fn push_set(batch: &mut Batch, table: &str, set: &Set, id: u32) {
    let what = format!("create set `{}` in nftables table `{table}`", set.name);
    let request = Request { kind: MessageType::NewSet.number(), flags: NLM_F_CREATE, what: &what };
    batch.push(&request, |bytes| {
        push_head(bytes, NFPROTO_INET);
        let map = if set.value.is_some() { SET_IS_MAP } else { 0 };
        let mut attributes = PushSetAttrs::new(bytes)
            .push_table_bytes(table.as_bytes())
            .push_name_bytes(set.name.as_bytes())
            .push_flags(set.flags | map)
            .push_key_type(set.key.number)
            .push_key_len(set.key.length);
        if let Some(value) = set.value {
            attributes = attributes.push_data_type(value.number).push_data_len(value.length);
            if let Some(data) = typeof_data(set.key, value) {
                attributes = attributes.push_userdata(&data);
            }
        }
        if set.key == FieldTypes::of(&[FieldType::InterfaceName]) {
            attributes = attributes.push_userdata(&key_in_host_order());
        }
        attributes.push_id(id).end_nested();
    });
}

fn push_rule(batch: &mut Batch, table: &str, rule: &Rule) {
    let what = format!("create rule `{}` in nftables table `{table}`", rule.name);
    let request = Request { kind: MessageType::NewRule.number(), flags: NLM_F_CREATE | NLM_F_APPEND, what: &what };
    batch.push(&request, |bytes| {
        push_head(bytes, NFPROTO_INET);
        let attributes =
            PushRuleAttrs::new(bytes).push_table_bytes(table.as_bytes()).push_chain_bytes(rule.chain.as_bytes());
        let mut list = attributes.nested_expressions();
        for expression in &rule.expressions {
            list = push_expression(list, expression);
        }
        list.end_nested().push_userdata(&comment(&rule.name)).end_nested();
    });
}

fn push_expression<P: Pusher>(list: PushExprListAttrs<P>, expression: &Expression) -> PushExprListAttrs<P> {
    let element = list.nested_elem();
    match expression {
        Expression::Meta { key, into } => {
            element.nested_data_meta().push_key(*key).push_dreg(*into).end_nested().end_nested()
        }
        Expression::Payload { base, offset, length, into } => {
            let data = element.nested_data_payload().push_dreg(*into).push_base(*base);
            data.push_offset(*offset).push_len(*length).end_nested().end_nested()
        }
        Expression::Ct { key, into } => {
            element.nested_data_ct().push_key(*key).push_dreg(*into).end_nested().end_nested()
        }
        Expression::Fib { result, flags, into } => {
            element.nested_data_fib().push_dreg(*into).push_result(*result).push_flags(*flags).end_nested().end_nested()
        }
        Expression::Bitwise { from, into, mask, xor } => {
            let data = element.nested_data_bitwise().push_sreg(*from).push_dreg(*into).push_len(mask.len() as u32);
            let data = data.nested_mask().push_value(mask).end_nested();
            data.nested_xor().push_value(xor).end_nested().end_nested().end_nested()
        }
        Expression::Compare { operation, register, value } => {
            let data = element.nested_data_cmp().push_sreg(*register).push_op(*operation);
            data.nested_data().push_value(value).end_nested().end_nested().end_nested()
        }
        Expression::Lookup { set, key, into, inverted } => {
            let mut data = Vec::with_capacity(64);
            let mut name = set.as_bytes().to_vec();
            name.push(0);
            push_attribute(&mut data, LOOKUP_SET, &name);
            push_attribute(&mut data, LOOKUP_KEY, &key.to_be_bytes());
            if let Some(into) = into {
                push_attribute(&mut data, LOOKUP_INTO, &into.to_be_bytes());
            }
            if *inverted == Inverted::Yes {
                push_attribute(&mut data, LOOKUP_FLAGS, &LOOKUP_INVERTED.to_be_bytes());
            }
            push_raw(element, "lookup", &data)
        }
        Expression::Verdict { code, chain } => {
            let data = element.nested_data_immediate().push_dreg(VERDICT_REGISTER).nested_data();
            push_verdict(data, *code, chain.as_deref()).end_nested().end_nested()
        }
        Expression::Nat { kind, family, address, port, flags } => {
            let data = element.nested_data_nat().push_type(*kind).push_family(*family);
            let mut data = data.push_reg_addr_min(*address).push_reg_proto_min(*port);
            if *flags != 0 {
                data = data.push_flags(*flags);
            }
            data.end_nested().end_nested()
        }
        Expression::Masquerade { attributes } => push_raw(element, "masq", attributes),
        Expression::Foreign { name, attributes } => push_raw(element, name, attributes),
    }
}

fn push_verdict<P: Pusher>(data: PushDataAttrs<P>, code: u32, chain: Option<&str>) -> P {
    let mut verdict = data.nested_verdict().push_code(code);
    if let Some(chain) = chain {
        verdict = verdict.push_chain_bytes(chain.as_bytes());
    }
    verdict.end_nested().end_nested()
}

/// An expression for which the codec has no form.
fn push_raw<P: Pusher>(element: PushExprAttrs<P>, name: &str, attributes: &[u8]) -> P {
    /// `NFTA_EXPR_DATA | NLA_F_NESTED`.
    const DATA: u16 = 2 | 0x8000;
    let mut element = element.push_name_bytes(name.as_bytes());
    let bytes = element.as_vec_mut();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    push_attribute(bytes, DATA, attributes);
    element.end_nested()
}

fn push_attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend((value.len() as u16 + 4).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// User data that tells the `nft` program to read a set's keys forwards. It shows names as nothing without it.
fn key_in_host_order() -> Vec<u8> {
    const KEY_BYTE_ORDER: u8 = 0;
    const HOST_ENDIAN: u32 = 1;
    let value = HOST_ENDIAN.to_ne_bytes();
    [&[KEY_BYTE_ORDER, value.len() as u8][..], &value].concat()
}

/// User data with a comment in it: type, length with its NUL, text.
pub(super) fn comment(text: &str) -> Vec<u8> {
    let mut bytes = vec![COMMENT, text.len() as u8 + 1];
    bytes.extend(text.as_bytes());
    bytes.push(0);
    bytes
}
