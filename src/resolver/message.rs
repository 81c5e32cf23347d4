//! Messages as bytes: RFC 1035, 4; EDNS, RFC 6891. What is asked of others is passed on as it came, and what they answer
//! as they sent it, so only what both sides must agree on is read here; our own answers are written by `simple-dns`.
//!
//! Everything read here comes from strangers: no offset is followed that was not checked.

use std::net::IpAddr;

use simple_dns::rdata::{
    A as ARecord, AAAA as AaaaRecord, OPT, PTR as PtrRecord, RData, SOA as SoaRecord, SRV as SrvRecord,
};
use simple_dns::{CLASS, Name, Packet, PacketFlag, RCODE, ResourceRecord, SimpleDnsError};

use super::answer::Answer;

/// The largest answer that we send over UDP, and say that we take, in bytes: it passes every path unbroken (DNS flag day
/// 2020).
pub const MAX_UDP: usize = 1232;
/// The largest answer over UDP for one who does not say what he takes, in bytes: RFC 1035, 4.2.1.
pub const LEAST_UDP: usize = 512;
/// The longest question that is looked at, in bytes. A name, its type, and options fit many times.
pub const MAX_QUERY: usize = 4096;
/// Answers about the stack hold for no longer than they are true.
const TTL: u32 = 0;
const HEADER: usize = 12;
const OPT_RECORD: u16 = 41;
const SOA_RECORD: u16 = 6;
const CLASS_IN: u16 = 1;
const CLASS_ANY: u16 = 255;
/// The bits of the second half of the header's first word.
const RESPONSE: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
const TRUNCATED: u16 = 0x0200;
const RECURSION_DESIRED: u16 = 0x0100;
const RECURSION_AVAILABLE: u16 = 0x0080;
const AUTHENTIC: u16 = 0x0020;
const CHECKING_DISABLED: u16 = 0x0010;

/// Response codes: RFC 1035, 4.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    NoError = 0,
    FormatError = 1,
    ServerFailure = 2,
    NoName = 3,
    NotImplemented = 4,
    Refused = 5,
}

/// A question, with what its asker takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    bytes: Vec<u8>,
    /// In lower case, without the root's.
    pub labels: Vec<Vec<u8>>,
    pub kind: u16,
    /// Where the question ends.
    end: usize,
    edns: Option<Edns>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edns {
    size: u16,
    version: u8,
    /// DNSSEC OK: RFC 3225.
    dnssec: bool,
}

/// What a packet is that is no question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Not to be answered: an answer itself, or too short to be anything.
    Ignored,
    /// To be answered so.
    Refused(Vec<u8>),
}

impl Query {
    /// Reads a question as it came by the wire.
    pub fn read(bytes: &[u8]) -> Result<Self, Wrong> {
        let flags = word(bytes, 2).filter(|_| bytes.len() >= HEADER).ok_or(Wrong::Ignored)?;
        if flags & RESPONSE != 0 {
            return Err(Wrong::Ignored);
        }
        let refused = |code| Wrong::Refused(bare(bytes, HEADER, None, code, 0));
        if flags & OPCODE != 0 {
            return Err(refused(Code::NotImplemented));
        }
        let faulty = || refused(Code::FormatError);
        if bytes.len() > MAX_QUERY || word(bytes, 4) != Some(1) {
            return Err(faulty());
        }
        let (labels, end) = question_name(bytes).ok_or_else(faulty)?;
        let (Some(kind), Some(class)) = (word(bytes, end), word(bytes, end + 2)) else { return Err(faulty()) };
        let end = end + 4;
        let records = records(bytes, end).ok_or_else(faulty)?;
        let mut options = records.iter().filter(|place| word(bytes, **place) == Some(OPT_RECORD));
        let edns = options.next().map(|&place| Edns {
            size: word(bytes, place + 2).unwrap_or(0),
            version: bytes[place + 5],
            dnssec: bytes[place + 6] & 0x80 != 0,
        });
        // More than one is a fault: RFC 6891, 6.1.1.
        if options.next().is_some() {
            return Err(faulty());
        }
        let query = Query { bytes: bytes.to_vec(), labels, kind, end, edns };
        if edns.is_some_and(|edns| edns.version != 0) {
            return Err(Wrong::Refused(query.bad_version()));
        }
        match class {
            CLASS_IN | CLASS_ANY => Ok(query),
            _ => Err(Wrong::Refused(query.failed(Code::Refused))),
        }
    }

    /// The labels as text; one with other bytes than text is nobody's name here.
    pub fn words(&self) -> Vec<&str> {
        self.labels.iter().map(|label| std::str::from_utf8(label).unwrap_or("\0")).collect()
    }

    /// Equal for questions that have one answer.
    pub fn key(&self) -> Vec<u8> {
        let mut key = self.bytes[HEADER..self.end].to_ascii_lowercase();
        // The type and the class are no letters.
        let length = key.len();
        key[length - 4..].copy_from_slice(&self.bytes[self.end - 4..self.end]);
        let flags = word(&self.bytes, 2).unwrap_or(0) & (RECURSION_DESIRED | CHECKING_DISABLED | AUTHENTIC);
        key.extend(flags.to_be_bytes());
        key.push(match self.edns {
            None => 0,
            Some(edns) => 1 + u8::from(edns.dnssec),
        });
        key
    }

    /// The largest answer over UDP that the asker takes, in bytes.
    fn udp_limit(&self) -> usize {
        self.edns.map_or(LEAST_UDP, |edns| usize::from(edns.size).clamp(LEAST_UDP, MAX_UDP))
    }

    /// An answer that only says what went wrong.
    pub fn failed(&self, code: Code) -> Vec<u8> {
        bare(&self.bytes, self.end, self.edns, code, 0)
    }

    /// RFC 6891, 6.1.3: the version is ours, the code is 16, of which the upper part is in the option's record.
    fn bad_version(&self) -> Vec<u8> {
        let mut reply = self.failed(Code::NoError);
        let at = reply.len() - 6;
        reply[at] = 1;
        reply
    }

    /// The answer about our own names.
    pub fn answered(&self, answer: &Answer, stack: &str) -> Vec<u8> {
        self.written(answer, stack).unwrap_or_else(|_| self.failed(Code::ServerFailure))
    }

    fn written(&self, answer: &Answer, stack: &str) -> Result<Vec<u8>, SimpleDnsError> {
        // The question alone: options of the asker's are none of the answer's.
        let mut alone = self.bytes[..self.end].to_vec();
        alone[6..HEADER].fill(0);
        let asked = Packet::parse(&alone)?;
        let Some(question) = asked.questions.first() else { return Ok(self.failed(Code::FormatError)) };
        let mut reply = Packet::new_reply(asked.id());
        let desired = asked.has_flags(PacketFlag::RECURSION_DESIRED);
        reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER | PacketFlag::RECURSION_AVAILABLE);
        if desired {
            reply.set_flags(PacketFlag::RECURSION_DESIRED);
        }
        if self.edns.is_some() {
            let option = OPT { opt_codes: Vec::new(), udp_packet_size: MAX_UDP as u16, version: 0 };
            *reply.opt_mut() = Some(option);
        }
        let owner = question.qname.clone();
        reply.questions.push(question.clone());
        let record = |name: Name<'_>, data| ResourceRecord::new(name.into_owned(), CLASS::IN, TTL, data);
        match answer {
            Answer::Addresses(addresses) => {
                reply.answers.extend(addresses.iter().map(|address| record(owner.clone(), address_data(*address))));
            }
            Answer::Pointer(name) => {
                let data = RData::PTR(PtrRecord(Name::new(name)?.into_owned()));
                reply.answers.push(record(owner.clone(), data));
            }
            Answer::Services { port, targets } => {
                for (target, addresses) in targets {
                    let name = Name::new(target)?;
                    let data = SrvRecord { priority: 0, weight: 1, port: *port, target: name.clone().into_owned() };
                    reply.answers.push(record(owner.clone(), RData::SRV(data)));
                    let more = addresses.iter().map(|address| record(name.clone(), address_data(*address)));
                    reply.additional_records.extend(more);
                }
            }
            Answer::Authority => reply.answers.push(record(owner.clone(), authority(stack)?)),
            Answer::NoData | Answer::NoName => reply.name_servers.push(record(Name::new(stack)?, authority(stack)?)),
            Answer::Elsewhere => return Ok(self.failed(Code::Refused)),
        }
        if *answer == Answer::NoName {
            *reply.rcode_mut() = RCODE::NameError;
        }
        reply.build_bytes_vec_compressed()
    }

    /// What others answered to a question like this one, as the answer to this one: its number, and its spelling of the
    /// name.
    pub fn adopt(&self, mut answer: Vec<u8>) -> Vec<u8> {
        answer[..2].copy_from_slice(&self.bytes[..2]);
        answer[HEADER..self.end].copy_from_slice(&self.bytes[HEADER..self.end]);
        answer
    }

    /// Cut to what the asker takes over UDP: a cut answer has no records, so that he asks again over TCP.
    pub fn fit_udp(&self, answer: Vec<u8>) -> Vec<u8> {
        if answer.len() <= self.udp_limit() {
            return answer;
        }
        let code = answer[3] & 0x0f;
        let mut cut = bare(&self.bytes, self.end, self.edns, Code::NoError, TRUNCATED);
        cut[3] |= code;
        cut
    }

    /// Whether bytes that came from a server answer this question, asked under `id`.
    pub fn is_answered_by(&self, bytes: &[u8], id: u16) -> bool {
        let ours = &self.bytes[HEADER..self.end];
        let Some(theirs) = bytes.get(HEADER..self.end) else { return false };
        let numbers = ours.len() - 4;
        word(bytes, 0) == Some(id)
            && word(bytes, 2).is_some_and(|flags| flags & RESPONSE != 0 && flags & OPCODE == 0)
            && word(bytes, 4) == Some(1)
            && theirs[..numbers].eq_ignore_ascii_case(&ours[..numbers])
            && theirs[numbers..] == ours[numbers..]
            && records(bytes, self.end).is_some()
    }

    /// The question as it is asked of others.
    pub fn asked_as(&self, id: u16) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[..2].copy_from_slice(&id.to_be_bytes());
        bytes
    }

    /// For how many seconds others' answer holds; `None`: it is not to be kept. RFC 2308 for what does not exist.
    pub fn lifetime(&self, answer: &[u8]) -> Option<u32> {
        let flags = word(answer, 2)?;
        if flags & TRUNCATED != 0 {
            return None;
        }
        let records = records(answer, self.end)?;
        let kind = |place: usize| word(answer, place).unwrap_or(0);
        // An option with something in it is about one exchange.
        let is_private = |place: &&usize| kind(**place) == OPT_RECORD && word(answer, **place + 8) != Some(0);
        if records.iter().any(|place| is_private(&place)) {
            return None;
        }
        let ttls = records.iter().filter(|place| kind(**place) != OPT_RECORD);
        let least = ttls.filter_map(|place| long(answer, place + 4)).min();
        let exists = flags & 0x000f == Code::NoError as u16 && word(answer, 6) != Some(0);
        match (flags & 0x000f, exists) {
            (_, true) => least.map(|ttl| ttl.min(LONGEST_KEPT)),
            (0 | 3, false) => {
                let place = records.iter().find(|place| kind(**place) == SOA_RECORD)?;
                let length = usize::from(word(answer, place + 8)?);
                let minimum = long(answer, (place + 10 + length).checked_sub(4)?)?;
                Some(least?.min(minimum).min(LONGEST_KEPT_NOTHING))
            }
            _ => None,
        }
    }

    /// An answer that was kept for so many seconds: its records hold for so much less.
    pub fn aged(&self, mut answer: Vec<u8>, seconds: u32) -> Vec<u8> {
        for place in records(&answer, self.end).unwrap_or_default() {
            if word(&answer, place) == Some(OPT_RECORD) {
                continue;
            }
            let left = long(&answer, place + 4).unwrap_or(0).saturating_sub(seconds);
            answer[place + 4..place + 8].copy_from_slice(&left.to_be_bytes());
        }
        answer
    }
}

/// Seconds that an answer of others is kept at most, and that it is believed that something does not exist.
const LONGEST_KEPT: u32 = 3600;
const LONGEST_KEPT_NOTHING: u32 = 300;

/// Whether another server may know better.
pub fn is_failure(answer: &[u8]) -> bool {
    answer.get(3).is_some_and(|byte| matches!(byte & 0x0f, 2 | 4 | 5))
}

fn authority(stack: &str) -> Result<RData<'static>, SimpleDnsError> {
    Ok(RData::SOA(SoaRecord {
        mname: Name::new(stack)?.into_owned(),
        rname: Name::new(stack)?.into_owned(),
        serial: 1,
        refresh: 60,
        retry: 60,
        expire: 60,
        minimum: TTL,
    }))
}

fn address_data(address: IpAddr) -> RData<'static> {
    match address {
        IpAddr::V4(address) => RData::A(ARecord { address: address.into() }),
        IpAddr::V6(address) => RData::AAAA(AaaaRecord { address: address.into() }),
    }
}

/// An answer without records to the question that ends at `end`; at [`HEADER`] it repeats no question.
fn bare(asked: &[u8], end: usize, edns: Option<Edns>, code: Code, flags: u16) -> Vec<u8> {
    let asked_flags = word(asked, 2).unwrap_or(0);
    let kept = asked_flags & (OPCODE | RECURSION_DESIRED | CHECKING_DISABLED);
    let mut reply = asked[..2].to_vec();
    reply.extend((RESPONSE | RECURSION_AVAILABLE | kept | flags | code as u16).to_be_bytes());
    for count in [u16::from(end > HEADER), 0, 0, u16::from(edns.is_some())] {
        reply.extend(count.to_be_bytes());
    }
    reply.extend(&asked[HEADER..end]);
    if let Some(edns) = edns {
        let [high, low] = OPT_RECORD.to_be_bytes();
        let [size_high, size_low] = (MAX_UDP as u16).to_be_bytes();
        let dnssec = if edns.dnssec { 0x80 } else { 0 };
        reply.extend([0, high, low, size_high, size_low, 0, 0, dnssec, 0, 0, 0]);
    }
    reply
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The labels of the first question's name in lower case, and where it ends. A question has nothing before it that it could
/// point back to.
fn question_name(bytes: &[u8]) -> Option<(Vec<Vec<u8>>, usize)> {
    /// RFC 1035, 2.3.4.
    const LONGEST: usize = 255;
    let mut labels = Vec::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            return (at - HEADER <= LONGEST).then_some((labels, at));
        }
        let label = bytes.get(at..at + length).filter(|_| length < 64)?;
        labels.push(label.to_ascii_lowercase());
        at += length;
    }
}

/// Where each record behind the question has its type; class, TTL, length and data follow at 2, 4, 8 and 10. `None`: the
/// message is broken, or holds several questions.
fn records(bytes: &[u8], end: usize) -> Option<Vec<usize>> {
    let count: usize = [6, 8, 10].iter().map(|at| word(bytes, *at).map(usize::from)).sum::<Option<usize>>()?;
    let mut places = Vec::new();
    let mut at = end;
    for _ in 0..count {
        at = name_end(bytes, at)?;
        places.push(at);
        let length = usize::from(word(bytes, at + 8)?);
        at += 10 + length;
        if at > bytes.len() {
            return None;
        }
    }
    Some(places)
}

fn name_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            // A pointer is the end of a name, wherever it leads.
            length if length & 0xc0 == 0xc0 => return Some(at + 2),
            length if length < 64 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use simple_dns::{QTYPE, Question, TYPE};

    use super::*;
    use crate::resolver::answer::{A, SRV};

    /// A question as a client sends it; `size` is what it takes over UDP, where it says so.
    fn question(name: &str, kind: u16, size: Option<u16>) -> Vec<u8> {
        let mut packet = Packet::new_query(0x1234);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        let kind = QTYPE::TYPE(TYPE::from(kind));
        packet.questions.push(Question::new(Name::new(name).unwrap(), kind, CLASS::IN.into(), false));
        if let Some(udp_packet_size) = size {
            *packet.opt_mut() = Some(OPT { opt_codes: Vec::new(), udp_packet_size, version: 0 });
        }
        packet.build_bytes_vec().unwrap()
    }

    fn query(name: &str, kind: u16, size: Option<u16>) -> Query {
        Query::read(&question(name, kind, size)).unwrap()
    }

    fn addresses(count: u8) -> Answer {
        Answer::Addresses((0..count).map(|last| IpAddr::from([10, 70, 0, last])).collect())
    }

    /// An answer of others: so many address records of this life, or an authority record.
    fn others(query: &Query, ttls: &[u32], authority: Option<(u32, u32)>, code: RCODE) -> Vec<u8> {
        let mut reply = Packet::parse(&query.bytes).unwrap().into_reply();
        let name = reply.questions[0].qname.clone();
        for ttl in ttls {
            let data = address_data([192, 0, 2, 1].into());
            reply.answers.push(ResourceRecord::new(name.clone(), CLASS::IN, *ttl, data));
        }
        if let Some((ttl, minimum)) = authority {
            let RData::SOA(soa) = super::authority("org").unwrap() else { panic!() };
            let data = RData::SOA(SoaRecord { minimum, ..soa });
            reply.name_servers.push(ResourceRecord::new(name.clone(), CLASS::IN, ttl, data));
        }
        *reply.rcode_mut() = code;
        reply.build_bytes_vec_compressed().unwrap()
    }

    #[test]
    fn a_question_is_read_in_lower_case_and_answered_in_its_own_spelling() {
        let query = query("Web.SHOP", A, None);
        assert_eq!((query.words(), query.kind), (vec!["web", "shop"], A));
        let bytes = query.answered(&addresses(2), "shop");
        let reply = Packet::parse(&bytes).unwrap();
        assert_eq!((reply.id(), reply.rcode(), reply.answers.len()), (0x1234, RCODE::NoError, 2));
        assert_eq!(reply.answers[0].name.to_string(), "Web.SHOP");
        assert!(reply.has_flags(PacketFlag::RESPONSE | PacketFlag::AUTHORITATIVE_ANSWER));
        assert!(reply.has_flags(PacketFlag::RECURSION_DESIRED | PacketFlag::RECURSION_AVAILABLE));
        assert!(reply.opt().is_none());
    }

    #[test]
    fn services_come_with_the_addresses_of_their_hosts() {
        let targets = vec![("web-1.shop".to_string(), vec![IpAddr::from([10, 70, 0, 2])])];
        let bytes = query("_80._tcp.web", SRV, Some(1232)).answered(&Answer::Services { port: 80, targets }, "shop");
        let reply = Packet::parse(&bytes).unwrap();
        let RData::SRV(service) = &reply.answers[0].rdata else { panic!("{reply:?}") };
        assert_eq!((service.port, service.target.to_string()), (80, "web-1.shop".into()));
        assert_eq!(reply.additional_records[0].name.to_string(), "web-1.shop");
        assert!(reply.opt().is_some());
    }

    #[test]
    fn what_does_not_exist_and_what_has_nothing_are_told_apart() {
        let code = |answer| {
            let bytes = query("x.shop", A, None).answered(&answer, "shop");
            let reply = Packet::parse(&bytes).unwrap();
            assert!(reply.answers.is_empty());
            assert!(matches!(reply.name_servers[0].rdata, RData::SOA(_)));
            reply.rcode()
        };
        assert_eq!([code(Answer::NoName), code(Answer::NoData)], [RCODE::NameError, RCODE::NoError]);
    }

    #[test]
    fn an_answer_over_udp_is_as_long_as_its_asker_takes() {
        let check = |size: Option<u16>, count: u8, is_cut: bool| {
            let query = query("web.shop", A, size);
            let bytes = query.fit_udp(query.answered(&addresses(count), "shop"));
            let reply = Packet::parse(&bytes).unwrap();
            assert_eq!(reply.has_flags(PacketFlag::TRUNCATION), is_cut, "{size:?} {count}");
            assert_eq!(reply.answers.len(), if is_cut { 0 } else { usize::from(count) });
            assert_eq!(reply.opt().is_some(), size.is_some());
        };
        check(None, 20, false);
        check(None, 40, true);
        check(Some(1232), 40, false);
        check(Some(65535), 100, true);
        // RFC 6891, 6.2.3: less than 512 counts as 512.
        check(Some(1), 20, false);
    }

    #[test]
    fn what_is_no_question_is_refused_or_passed_over() {
        let good = question("web.shop", A, None);
        let change = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            match Query::read(&bytes) {
                Ok(_) => "taken".to_string(),
                Err(Wrong::Ignored) => "ignored".into(),
                Err(Wrong::Refused(reply)) => format!("{}", reply[3] & 0x0f),
            }
        };
        assert_eq!(change(&|_| {}), "taken");
        assert_eq!(change(&|bytes| bytes[2] |= 0x80), "ignored");
        assert_eq!(change(&|bytes| bytes.truncate(11)), "ignored");
        assert_eq!(change(&|bytes| bytes[2] |= 0x10), "4");
        assert_eq!(change(&|bytes| bytes[5] = 2), "1");
        assert_eq!(change(&|bytes| bytes[5] = 0), "1");
        assert_eq!(change(&|bytes| bytes.truncate(20)), "1");
        assert_eq!(change(&|bytes| bytes[12] = 0xc0), "1");
        assert_eq!(change(&|bytes| bytes[11] = 1), "1");
        // Class CH.
        assert_eq!(change(&|bytes| *bytes.last_mut().unwrap() = 3), "5");
    }

    #[test]
    fn no_bytes_whatever_are_too_much() {
        let good = question("web.shop", A, Some(1232));
        for at in 0..good.len() {
            for value in 0..=255 {
                let mut bytes = good.clone();
                bytes[at] = value;
                if let Ok(query) = Query::read(&bytes) {
                    query.fit_udp(query.answered(&addresses(1), "shop"));
                    query.key();
                }
            }
            let _ = Query::read(&good[..at]);
        }
    }

    #[test]
    fn another_version_of_edns_is_answered_with_ours() {
        let mut bytes = question("web.shop", A, Some(1232));
        let version = bytes.len() - 5;
        bytes[version] = 1;
        let Err(Wrong::Refused(reply)) = Query::read(&bytes) else { panic!("refused") };
        // Code 16: its upper eight bits are the record's first, then comes the version (RFC 6891, 6.1.3).
        let option = reply.len() - 6;
        assert_eq!((reply[3] & 0x0f, &reply[option..option + 2]), (0, &[1, 0][..]));
    }

    #[test]
    fn an_answer_must_have_the_number_and_the_question() {
        let query = query("example.org", A, None);
        let bytes = others(&query, &[60], None, RCODE::NoError);
        assert!(query.is_answered_by(&bytes, 0x1234));
        assert!(!query.is_answered_by(&bytes, 0x1235));
        assert!(!query.is_answered_by(&query.bytes, 0x1234), "a question");
        assert!(!query.is_answered_by(&bytes[..bytes.len() - 1], 0x1234), "cut short");
        let other = super::Query::read(&question("example.com", A, None)).unwrap();
        assert!(!query.is_answered_by(&others(&other, &[60], None, RCODE::NoError), 0x1234));
    }

    #[test]
    fn answers_of_others_are_kept_as_long_as_they_hold() {
        let query = query("example.org", A, None);
        let life = |ttls: &[u32], authority, code| query.lifetime(&others(&query, ttls, authority, code));
        assert_eq!(life(&[60, 30], None, RCODE::NoError), Some(30));
        assert_eq!(life(&[99_999], None, RCODE::NoError), Some(3600));
        assert_eq!(life(&[], Some((60, 20)), RCODE::NameError), Some(20));
        assert_eq!(life(&[], Some((10, 20)), RCODE::NoError), Some(10));
        assert_eq!(life(&[], Some((9999, 9999)), RCODE::NameError), Some(300));
        assert_eq!(life(&[], None, RCODE::NameError), None);
        assert_eq!(life(&[], Some((60, 60)), RCODE::ServerFailure), None);
        let aged = query.aged(others(&query, &[60], None, RCODE::NoError), 25);
        assert_eq!(Packet::parse(&aged).unwrap().answers[0].ttl, 35);
    }

    #[test]
    fn questions_with_one_answer_have_one_key() {
        let key = |name: &str, kind, size| query(name, kind, size).key();
        assert_eq!(key("Example.org", A, None), key("example.ORG", A, None));
        assert_ne!(key("example.org", A, None), key("example.org", 28, None));
        assert_ne!(key("example.org", A, None), key("example.org", A, Some(1232)));
        let asked = query("eXample.org", A, None);
        let adopted = asked.adopt(others(&query("example.org", A, None), &[60], None, RCODE::NoError));
        assert!(asked.is_answered_by(&adopted, 0x1234));
        assert_eq!(&adopted[13..20], b"eXample");
    }
}
