//! User data that tells the `nft` program which expressions a map's key and value are made of. It needs them where a type
//! alone does not say how wide a field is: without them it prints a table that it does not take back.
//!
//! The form is `libnftnl`'s: type, length, value, one byte each for the first two; numbers in the host's order.

use super::ruleset::{FieldType, FieldTypes, TURNS};

/// `NFTNL_UDATA_SET_*`.
const KEY_BYTE_ORDER: u8 = 0;
const DATA_BYTE_ORDER: u8 = 1;
const KEY_TYPEOF: u8 = 3;
const DATA_TYPEOF: u8 = 4;
/// The kinds of expressions as `nft` numbers them for this purpose (`enum expr_types`).
const PAYLOAD: u32 = 7;
const META: u32 = 9;
const CONCATENATION: u32 = 13;
const NUMGEN: u32 = 23;
/// `NFT_META_IIFNAME`, `NFT_META_L4PROTO`.
const META_INPUT_INTERFACE: u32 = 6;
const META_TRANSPORT_PROTOCOL: u32 = 16;
/// `PROTO_DESC_TH`, `_IP`, `_IP6`, and in each the field of the destination.
const TRANSPORT_DESTINATION: [u32; 2] = [11, 2];
const IPV4_DESTINATION: [u32; 2] = [12, 12];
const IPV6_DESTINATION: [u32; 2] = [13, 9];
/// `BYTEORDER_BIG_ENDIAN`; 0 where there are several fields.
const BIG_ENDIAN: u32 = 2;

/// The user data of a map; none where types alone say all.
pub(super) fn typeof_data(key: FieldTypes, value: FieldTypes) -> Option<Vec<u8>> {
    let (key, value) = (key.fields()?, value.fields()?);
    key.contains(&FieldType::Turn).then(|| {
        let order = if value.len() == 1 { BIG_ENDIAN } else { 0 };
        let mut data = number(KEY_BYTE_ORDER, 0);
        data.extend(number(DATA_BYTE_ORDER, order));
        data.extend(part(KEY_TYPEOF, &expressions(&key)));
        data.extend(part(DATA_TYPEOF, &expressions(&value)));
        data
    })
}

fn part(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind, value.len() as u8], value].concat()
}

fn number(kind: u8, number: u32) -> Vec<u8> {
    part(kind, &number.to_ne_bytes())
}

fn typed(kind: u32, data: &[u8]) -> Vec<u8> {
    [number(0, kind), part(1, data)].concat()
}

fn expressions(fields: &[FieldType]) -> Vec<u8> {
    match fields {
        [field] => expression(*field),
        _ => {
            let parts = (0u8..).zip(fields).flat_map(|(place, field)| part(place, &expression(*field)));
            typed(CONCATENATION, &parts.collect::<Vec<u8>>())
        }
    }
}

fn expression(field: FieldType) -> Vec<u8> {
    let payload = |[header, field]: [u32; 2]| typed(PAYLOAD, &[number(0, header), number(1, field)].concat());
    match field {
        FieldType::Ipv4Address => payload(IPV4_DESTINATION),
        FieldType::Ipv6Address => payload(IPV6_DESTINATION),
        FieldType::Port => payload(TRANSPORT_DESTINATION),
        FieldType::Protocol => typed(META, &number(0, META_TRANSPORT_PROTOCOL)),
        FieldType::InterfaceName => typed(META, &number(0, META_INPUT_INTERFACE)),
        // Incremental, and from 0.
        FieldType::Turn => typed(NUMGEN, &[number(0, 0), number(1, TURNS), number(2, 0)].concat()),
    }
}
