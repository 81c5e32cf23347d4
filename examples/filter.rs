//! A seccomp profile as the kernel gets it: its size, its instructions, and what it answers to a call.
//!
//! `cargo run --example filter -- [PROFILE.json|default] [CALL [ARGUMENT…]]`

use std::error::Error;

use stack::runtime::seccomp::{Architecture, Profile, SeccompData, compile};

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let profile = match words.next().as_deref() {
        None | Some("default") => Profile::default_profile().clone(),
        Some(path) => Profile::parse(&std::fs::read_to_string(path)?)?,
    };
    let compiled = compile(&profile.to_oci(&[], (6, 1)))?;
    let filter = &compiled.filter;
    println!("{} instructions, flags {:#x}", filter.instructions.len(), filter.flags.0);
    println!("names of no known call: {:?}", compiled.unknown_calls);

    let Some(name) = words.next() else {
        for (at, one) in filter.instructions.iter().enumerate() {
            println!("{at:4}  {:?} {:#x}  +{} +{}", one.opcode(), one.k, one.jt, one.jf);
        }
        return Ok(());
    };
    let native = Architecture::native().ok_or("no known architecture")?;
    let mut args = [0; 6];
    for (place, word) in args.iter_mut().zip(words) {
        *place = word.parse()?;
    }
    let nr = native.number(&name).ok_or_else(|| format!("there is no call `{name}`"))?;
    let data = SeccompData { nr, arch: native.audit(), instruction_pointer: 0, args };
    println!("{name}{args:?}: {:?}", filter.evaluate(&data));
    Ok(())
}
