//! What the kernel lists, as a [`super::Ruleset`]. An expression becomes one of ours only if it says nothing more than
//! ours can hold; all else is kept as it came, so that no change by a stranger is overlooked.

use netlink_bindings::nftables::{
    ChainAttrs, ExprBitwiseAttrs, ExprCmpAttrs, ExprCtAttrs, ExprFibAttrs, ExprImmediateAttrs, ExprMetaAttrs,
    ExprNatAttrs, ExprPayloadAttrs, RuleAttrs, SetAttrs, SetelemAttrs, TableAttrs,
};

use super::encode::{
    COMMENT, LOOKUP_FLAGS, LOOKUP_INTO, LOOKUP_INVERTED, LOOKUP_KEY, LOOKUP_SET, SET_IS_MAP, VERDICT_REGISTER,
};
use super::ruleset::{BaseChain, Chain, Expression, FieldTypes, Hook, Inverted, Policy, Rule, Set};
use crate::runtime::net::netlink::{attribute, attributes, text_of};

/// The size of a `struct nfgenmsg`.
const HEAD_BYTES: usize = 4;
/// `NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED`: the kernel adds them itself.
const NAT_RANGE_IMPLIED: u32 = 0x3;

/// A table's name, flags and comment.
pub(super) struct TableHead {
    pub name: String,
    pub flags: u32,
    pub label: Option<String>,
}

pub(super) fn table(payload: &[u8]) -> Option<TableHead> {
    let attributes = TableAttrs::new(payload.get(HEAD_BYTES..)?);
    Some(TableHead {
        name: text_of(attributes.get_name().ok()?.to_bytes())?,
        flags: attributes.get_flags().unwrap_or(0),
        label: attributes.get_userdata().ok().and_then(comment),
    })
}

/// The name of the table that it belongs to, and the chain.
pub(super) fn chain(payload: &[u8]) -> Option<(String, Chain)> {
    let attributes = ChainAttrs::new(payload.get(HEAD_BYTES..)?);
    let base = match attributes.get_hook() {
        Ok(hook) => Some(BaseChain {
            kind: text_of(attributes.get_type().ok()?.to_bytes())?,
            hook: Hook::from_number(hook.get_num().ok()?),
            priority: hook.get_priority().ok()?,
            policy: if attributes.get_policy().is_ok_and(|policy| policy == 0) { Policy::Drop } else { Policy::Accept },
        }),
        Err(_) => None,
    };
    let name = text_of(attributes.get_name().ok()?.to_bytes())?;
    Some((text_of(attributes.get_table().ok()?.to_bytes())?, Chain { name, base }))
}

/// A set without its elements.
pub(super) fn set(payload: &[u8]) -> Option<Set> {
    let attributes = SetAttrs::new(payload.get(HEAD_BYTES..)?);
    let flags = attributes.get_flags().unwrap_or(0);
    let value = (flags & SET_IS_MAP != 0).then(|| FieldTypes {
        number: attributes.get_data_type().unwrap_or(0),
        length: attributes.get_data_len().unwrap_or(0),
    });
    Some(Set {
        name: text_of(attributes.get_name().ok()?.to_bytes())?,
        key: FieldTypes { number: attributes.get_key_type().unwrap_or(0), length: attributes.get_key_len().ok()? },
        value,
        flags: flags & !SET_IS_MAP,
        elements: Default::default(),
    })
}

/// Which of the states that transactions made one after another is the present one.
pub(super) fn generation(payload: &[u8]) -> Option<u32> {
    const ID: u16 = 1;
    let id = attribute(payload.get(HEAD_BYTES..)?, ID)?;
    Some(u32::from_be_bytes(id.try_into().ok()?))
}

/// The elements of one message, key and value.
pub(super) fn elements(payload: &[u8]) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    const ELEMENTS: u16 = 3;
    let list = payload.get(HEAD_BYTES..).and_then(|rest| attribute(rest, ELEMENTS)).unwrap_or_default();
    attributes(list).filter_map(|(_, element)| {
        let element = SetelemAttrs::new(element);
        let key = element.get_key().ok()?.get_value().ok()?.to_vec();
        let value = element.get_data().ok().and_then(|data| data.get_value().ok()).unwrap_or_default().to_vec();
        Some((key, value))
    })
}

pub(super) fn rule(payload: &[u8]) -> Option<Rule> {
    const EXPRESSIONS: u16 = 4;
    let rest = payload.get(HEAD_BYTES..)?;
    let read = RuleAttrs::new(rest);
    Some(Rule {
        chain: text_of(read.get_chain().ok()?.to_bytes())?,
        name: read.get_userdata().ok().and_then(comment).unwrap_or_default(),
        expressions: attributes(attribute(rest, EXPRESSIONS).unwrap_or_default())
            .map(|(_, element)| expression(element))
            .collect(),
    })
}

fn expression(element: &[u8]) -> Expression {
    const NAME: u16 = 1;
    const DATA: u16 = 2;
    let name = attribute(element, NAME).and_then(text_of).unwrap_or_default();
    let data = attribute(element, DATA).unwrap_or_default();
    known(&name, data).unwrap_or_else(|| Expression::Foreign { name, attributes: data.to_vec() })
}

/// The expression if it is one of ours. The numbers are the attributes that it may have (`NFTA_*`).
fn known(name: &str, data: &[u8]) -> Option<Expression> {
    let only = |allowed: &[u16]| attributes(data).all(|(kind, _)| allowed.contains(&kind)).then_some(());
    match name {
        "meta" => {
            only(&[1, 2])?;
            let read = ExprMetaAttrs::new(data);
            Some(Expression::Meta { key: read.get_key().ok()?, into: read.get_dreg().ok()? })
        }
        "payload" => {
            only(&[1, 2, 3, 4])?;
            let read = ExprPayloadAttrs::new(data);
            Some(Expression::Payload {
                base: read.get_base().ok()?,
                offset: read.get_offset().ok()?,
                length: read.get_len().ok()?,
                into: read.get_dreg().ok()?,
            })
        }
        "ct" => {
            only(&[1, 2])?;
            let read = ExprCtAttrs::new(data);
            Some(Expression::Ct { key: read.get_key().ok()?, into: read.get_dreg().ok()? })
        }
        "fib" => {
            only(&[1, 2, 3])?;
            let read = ExprFibAttrs::new(data);
            Some(Expression::Fib {
                result: read.get_result().ok()?,
                flags: read.get_flags().ok()?,
                into: read.get_dreg().ok()?,
            })
        }
        "bitwise" => bitwise(data),
        "cmp" => {
            only(&[1, 2, 3])?;
            let read = ExprCmpAttrs::new(data);
            Some(Expression::Compare {
                operation: read.get_op().ok()?,
                register: read.get_sreg().ok()?,
                value: read.get_data().ok()?.get_value().ok()?.to_vec(),
            })
        }
        "lookup" => lookup(data),
        "immediate" => verdict(data),
        "nat" => nat(data),
        "masq" => Some(Expression::Masquerade { attributes: data.to_vec() }),
        _ => None,
    }
}

fn bitwise(data: &[u8]) -> Option<Expression> {
    // The sixth says which operation it is; zero, mask and xor, is the one we know. Older kernels do not show it.
    if attributes(data).any(|(kind, value)| kind > 6 || kind == 6 && value.iter().any(|byte| *byte != 0)) {
        return None;
    }
    let read = ExprBitwiseAttrs::new(data);
    Some(Expression::Bitwise {
        from: read.get_sreg().ok()?,
        into: read.get_dreg().ok()?,
        mask: read.get_mask().ok()?.get_value().ok()?.to_vec(),
        xor: read.get_xor().ok()?.get_value().ok()?.to_vec(),
    })
}

fn lookup(data: &[u8]) -> Option<Expression> {
    let number = |kind| Some(u32::from_be_bytes(attribute(data, kind)?.try_into().ok()?));
    let inverted = match number(LOOKUP_FLAGS).unwrap_or(0) {
        0 => Inverted::No,
        LOOKUP_INVERTED => Inverted::Yes,
        _ => return None,
    };
    Some(Expression::Lookup {
        set: attribute(data, LOOKUP_SET).and_then(text_of)?,
        key: number(LOOKUP_KEY)?,
        into: number(LOOKUP_INTO),
        inverted,
    })
}

fn verdict(data: &[u8]) -> Option<Expression> {
    let read = ExprImmediateAttrs::new(data);
    if read.get_dreg().ok()? != VERDICT_REGISTER {
        return None;
    }
    let verdict = read.get_data().ok()?.get_verdict().ok()?;
    let chain = verdict.get_chain().ok().and_then(|name| text_of(name.to_bytes()));
    Some(Expression::Verdict { code: verdict.get_code().ok()?, chain })
}

fn nat(data: &[u8]) -> Option<Expression> {
    let read = ExprNatAttrs::new(data);
    let (address, port) = (read.get_reg_addr_min().ok()?, read.get_reg_proto_min().ok()?);
    // The kernel shows a single address as a range of one.
    if read.get_reg_addr_max().is_ok_and(|max| max != address) || read.get_reg_proto_max().is_ok_and(|max| max != port)
    {
        return None;
    }
    Some(Expression::Nat {
        kind: read.get_type().ok()?,
        family: read.get_family().ok()?,
        address,
        port,
        flags: read.get_flags().unwrap_or(0) & !NAT_RANGE_IMPLIED,
    })
}

/// The comment among user data: a list of type, length, value.
fn comment(mut bytes: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = bytes {
        let value = rest.get(..usize::from(*length))?;
        if *kind == COMMENT {
            return text_of(value);
        }
        bytes = &rest[usize::from(*length)..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::encode;
    use super::*;

    #[test]
    fn a_comment_survives_user_data() {
        assert_eq!(comment(&encode::comment("loopback guard")).as_deref(), Some("loopback guard"));
        assert_eq!(comment(&[1, 2, 9, 9, 0, 2, b'x', 0]).as_deref(), Some("x"), "other entries are stepped over");
        assert_eq!(comment(&[0, 200, b'x']), None, "an entry longer than the data is none");
    }
}
