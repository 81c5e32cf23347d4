//! D-Bus messages, as far as one call to systemd and its answer need them (D-Bus specification, "Message Protocol"): written in
//! little-endian order, read in either is not needed, since systemd answers in that of the machine.

/// Of one message that is read; the longest answer that is asked for is an object's path.
pub const MAX_MESSAGE: usize = 1 << 20;
/// The fixed beginning of a message: up to the length of the array of fields.
pub const FIXED: usize = 16;

const CALL: u8 = 1;
const VERSION: u8 = 1;
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// A value of a unit's property, with its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Bool(bool),
    Int32(i32),
    Uint32(u32),
    Uint64(u64),
    Text(String),
    Bytes(Vec<u8>),
    Numbers(Vec<u32>),
}

/// Bytes, with every value at a multiple of its size.
#[derive(Debug, Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    pub fn align(&mut self, size: usize) {
        self.0.resize(self.0.len().next_multiple_of(size), 0);
    }

    pub fn uint32(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    fn uint64(&mut self, value: u64) {
        self.align(8);
        self.0.extend(value.to_le_bytes());
    }

    pub fn text(&mut self, text: &str) {
        self.uint32(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.0.push(signature.len() as u8);
        self.0.extend(signature.as_bytes());
        self.0.push(0);
    }

    /// An array: its length in bytes does not count the space before the first element.
    pub fn array(&mut self, element: usize, fill: impl FnOnce(&mut Self)) {
        self.uint32(0);
        let place = self.0.len() - 4;
        self.align(element);
        let start = self.0.len();
        fill(self);
        let length = (self.0.len() - start) as u32;
        if let Some(place) = self.0.get_mut(place..place + 4) {
            place.copy_from_slice(&length.to_le_bytes());
        }
    }

    pub fn variant(&mut self, value: &Value) {
        match value {
            Value::Bool(value) => {
                self.signature("b");
                self.uint32(u32::from(*value));
            }
            Value::Int32(value) => {
                self.signature("i");
                self.uint32(value.cast_unsigned());
            }
            Value::Uint32(value) => {
                self.signature("u");
                self.uint32(*value);
            }
            Value::Uint64(value) => {
                self.signature("t");
                self.uint64(*value);
            }
            Value::Text(value) => {
                self.signature("s");
                self.text(value);
            }
            Value::Bytes(bytes) => {
                self.signature("ay");
                self.array(1, |writer| writer.0.extend(bytes));
            }
            Value::Numbers(list) => {
                self.signature("au");
                self.array(4, |writer| list.iter().for_each(|number| writer.uint32(*number)));
            }
        }
    }

    /// `a(sv)`.
    pub fn properties(&mut self, list: &[(String, Value)]) {
        self.array(8, |writer| {
            for (name, value) in list {
                writer.align(8);
                writer.text(name);
                writer.variant(value);
            }
        });
    }
}

/// Whom a call is for.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub destination: &'static str,
    pub path: &'static str,
    pub interface: &'static str,
}

/// A call of `member` with a body of the type `signature`.
pub fn call(serial: u32, target: Target, member: &str, (signature, body): (&str, Writer)) -> Vec<u8> {
    let mut message = Writer(vec![b'l', CALL, 0, VERSION]);
    message.uint32(body.0.len() as u32);
    message.uint32(serial);
    message.array(8, |fields| {
        let texts = [
            (PATH, "o", target.path),
            (INTERFACE, "s", target.interface),
            (MEMBER, "s", member),
            (DESTINATION, "s", target.destination),
        ];
        for (field, kind, text) in texts {
            fields.align(8);
            fields.0.push(field);
            fields.signature(kind);
            fields.text(text);
        }
        if !signature.is_empty() {
            fields.align(8);
            fields.0.push(SIGNATURE);
            fields.signature("g");
            fields.signature(signature);
        }
    });
    message.align(8);
    message.0.extend(body.0);
    message.0
}

/// What was answered or told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub kind: u8,
    pub reply_to: Option<u32>,
    pub member: Option<String>,
    pub error: Option<String>,
    pub body: Vec<u8>,
}

impl Message {
    pub const ANSWER: u8 = 2;
    pub const ERROR: u8 = 3;
    pub const SIGNAL: u8 = 4;

    /// How many bytes follow the fixed beginning; `None`: it is none, or too long.
    pub fn rest(fixed: &[u8; FIXED]) -> Option<usize> {
        let number = |start: usize| Some(u32::from_le_bytes(fixed.get(start..start + 4)?.try_into().ok()?) as usize);
        let length = number(12)?.checked_next_multiple_of(8)?.checked_add(number(4)?)?;
        (fixed[0] == b'l' && fixed[3] == VERSION && length <= MAX_MESSAGE).then_some(length)
    }

    /// `bytes` is a whole message. `None`: it is damaged.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { bytes, place: 12 };
        let end = reader.uint32()? as usize + FIXED;
        let mut message = Self { kind: *bytes.get(1)?, ..Self::default() };
        while reader.place < end {
            reader.align(8);
            let field = reader.byte()?;
            match (field, reader.signature()?) {
                (MEMBER, "s") => message.member = Some(reader.text()?.to_owned()),
                (ERROR_NAME, "s") => message.error = Some(reader.text()?.to_owned()),
                (REPLY_SERIAL, "u") => message.reply_to = Some(reader.uint32()?),
                (_, "s" | "o") => drop(reader.text()?),
                (_, "u") => drop(reader.uint32()?),
                (_, "g") => drop(reader.signature()?),
                _ => return None,
            }
        }
        message.body = bytes.get(end.next_multiple_of(8)..)?.to_vec();
        Some(message)
    }
}

/// Reads values one after the other.
pub struct Reader<'a> {
    pub bytes: &'a [u8],
    pub place: usize,
}

impl<'a> Reader<'a> {
    fn align(&mut self, size: usize) {
        self.place = self.place.next_multiple_of(size);
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let bytes = self.bytes.get(self.place..self.place.checked_add(length)?)?;
        self.place += length;
        Some(bytes)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub fn uint32(&mut self) -> Option<u32> {
        self.align(4);
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    /// A text or an object's path.
    pub fn text(&mut self) -> Option<&'a str> {
        let length = self.uint32()? as usize;
        let text = std::str::from_utf8(self.take(length)?).ok()?;
        self.take(1)?;
        Some(text)
    }

    fn signature(&mut self) -> Option<&'a str> {
        let length = usize::from(self.byte()?);
        let text = std::str::from_utf8(self.take(length)?).ok()?;
        self.take(1)?;
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Target = Target { destination: "d.e", path: "/p", interface: "i.f" };

    #[test]
    fn values_are_at_multiples_of_their_size() {
        let mut writer = Writer::default();
        writer.0.push(7);
        writer.text("ab");
        writer.variant(&Value::Uint64(1));
        assert_eq!(writer.0[..11], [7, 0, 0, 0, 2, 0, 0, 0, b'a', b'b', 0]);
        assert_eq!(writer.0[11..], [1, b't', 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0][..]);
    }

    #[test]
    fn an_array_does_not_count_the_space_before_its_first_element() {
        let mut writer = Writer::default();
        writer.properties(&[("A".to_owned(), Value::Bool(true))]);
        // The length, four bytes of space, the name, the type, the value.
        let name = [1, 0, 0, 0, b'A', 0];
        let value = [1, b'b', 0, 0, 0, 0, 1, 0, 0, 0];
        assert_eq!(writer.0, [&[16, 0, 0, 0, 0, 0, 0, 0][..], &name, &value[..3], &[0, 0, 0], &value[6..]].concat());
    }

    #[test]
    fn a_call_is_laid_out_as_the_specification_has_it() {
        let mut body = Writer::default();
        body.text("x");
        let bytes = call(9, TARGET, "Do", ("s", body));
        assert_eq!(bytes[..4], [b'l', 1, 0, 1]);
        assert_eq!(bytes[4..12], [6, 0, 0, 0, 9, 0, 0, 0]);
        let mut fixed = [0; FIXED];
        fixed.copy_from_slice(&bytes[..FIXED]);
        assert_eq!(Message::rest(&fixed), Some(bytes.len() - FIXED));
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.member.as_deref(), Some("Do"));
        assert_eq!(Reader { bytes: &message.body, place: 0 }.text(), Some("x"));
    }

    #[test]
    fn a_damaged_message_is_none() {
        let bytes = call(9, TARGET, "Do", ("", Writer::default()));
        for length in [0, 5, 15, 20, bytes.len() - 9] {
            assert_eq!(Message::parse(&bytes[..length]), None, "{length}");
        }
        let mut fixed = [0xff; FIXED];
        (fixed[0], fixed[3]) = (b'l', 1);
        assert_eq!(Message::rest(&fixed), None);
    }
}
