//! The stable codes of diagnostics. A code keeps its meaning for ever; a retired one is not given out again.

/// What kind of fault a diagnostic is about, such as `E0110`.
pub type Code = &'static str;

/// The file cannot be read, or is no UTF-8.
pub const UNREADABLE: Code = "E0100";
/// The text is not TOML.
pub const SYNTAX: Code = "E0101";
/// A key or a table is written twice.
pub const DUPLICATE_KEY: Code = "E0102";
/// A key that no table of this kind has.
pub const UNKNOWN_KEY: Code = "E0110";
/// A key or value in another tool's spelling.
pub const FOREIGN_SPELLING: Code = "E0111";
/// A key or value whose effect is not there yet.
pub const NOT_YET: Code = "E0112";
/// A key that must be there is missing.
pub const MISSING_KEY: Code = "E0113";
/// A value of the wrong type.
pub const WRONG_TYPE: Code = "E0114";
/// Keys that exclude each other, or of which one is needed.
pub const KEY_CHOICE: Code = "E0115";
/// `${VAR}` where the variable is not set.
pub const UNSET_VARIABLE: Code = "E0120";
/// `${…}` that cannot be read.
pub const BAD_VARIABLE: Code = "E0121";
/// A text that holds a character the kernel's strings cannot.
pub const BAD_CHARACTER: Code = "E0122";
/// A name that breaks the rules of names.
pub const BAD_NAME: Code = "E0130";
/// A size, a duration or a number of processors that cannot be read.
pub const BAD_QUANTITY: Code = "E0131";
/// A number outside its range.
pub const OUT_OF_RANGE: Code = "E0132";
/// A word that is none of those allowed.
pub const BAD_CHOICE: Code = "E0133";
/// A published port that cannot be read.
pub const BAD_PORT: Code = "E0134";
/// A path in the container that cannot be used.
pub const BAD_TARGET: Code = "E0135";
/// A file or folder of the host that is not there, or is of another kind.
pub const NO_SUCH_FILE: Code = "E0136";
/// A file of the host that does not hold what it should.
pub const BAD_FILE: Code = "E0137";
/// An image source that cannot be read.
pub const BAD_IMAGE: Code = "E0138";
/// A subnet that cannot be used.
pub const BAD_SUBNET: Code = "E0139";
/// A user, group or owner that cannot be read.
pub const BAD_USER: Code = "E0140";
/// An environment variable that cannot be set.
pub const BAD_ENV: Code = "E0141";
/// No such signal, capability, resource limit or kernel parameter.
pub const UNKNOWN_KERNEL_NAME: Code = "E0142";
/// A soft limit above its hard limit.
pub const SOFT_ABOVE_HARD: Code = "E0143";
/// A text in a form that its key does not take.
pub const BAD_TEXT: Code = "E0144";
/// An instruction of a Dockerfile that cannot be read.
pub const BAD_INSTRUCTION: Code = "E0145";
/// An instruction of a Dockerfile, or a part of one, that has no counterpart here.
pub const REFUSED_INSTRUCTION: Code = "E0146";
/// What an override takes out and is not there.
pub const NOTHING_TO_REMOVE: Code = "E0147";
/// A name that no table has.
pub const UNKNOWN_REFERENCE: Code = "E0201";
/// Containers that wait for each other.
pub const CYCLE: Code = "E0202";
/// A port of the host that is asked for twice.
pub const PORT_CLASH: Code = "E0203";
/// Subnets that share addresses.
pub const SUBNET_OVERLAP: Code = "E0204";
/// A wait for something that cannot come.
pub const ENDLESS_WAIT: Code = "E0205";
/// Two things at one path of a container.
pub const TARGET_CLASH: Code = "E0206";
/// A published port of a container that no bridge reaches.
pub const PORT_WITHOUT_BRIDGE: Code = "E0207";
/// More containers than the subnet has addresses.
pub const SUBNET_TOO_SMALL: Code = "E0208";
/// Limits that contradict each other.
pub const LIMIT_CLASH: Code = "E0209";
/// Two containers that would have one name.
pub const NAME_CLASH: Code = "E0210";
/// The same thing listed twice.
pub const LISTED_TWICE: Code = "E0211";
/// A profile that no table knows.
pub const UNKNOWN_PROFILE: Code = "E0212";
/// A table that nothing uses.
pub const UNUSED: Code = "W0301";
/// A limit that its branch makes pointless.
pub const POINTLESS_LIMIT: Code = "W0302";
/// A file bound by itself, which an editor's way of saving cuts off.
pub const SINGLE_FILE_BIND: Code = "W0303";
/// A secret that the container's user may not be able to read.
pub const UNREADABLE_SECRET: Code = "W0304";
