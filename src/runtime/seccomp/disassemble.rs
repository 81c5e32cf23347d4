//! A program as text, an instruction a line, in the notation of the kernel's `bpf_asm`
//! (Documentation/networking/filter.rst), with what is loaded and answered in words.

use super::{AluOperation, BpfInstruction, BpfOpcode, JumpTest, Operand, SeccompAction, seccomp_offsets};

/// Lines without line feeds, as many as instructions. An instruction that seccomp does not take is shown as its numbers.
pub fn disassemble(program: &[BpfInstruction]) -> Vec<String> {
    program.iter().enumerate().map(|(at, one)| format!("{at:>4}: {}", line(at, one))).collect()
}

fn line(at: usize, one: &BpfInstruction) -> String {
    let BpfInstruction { jt, jf, k, .. } = *one;
    let Some(opcode) = one.opcode() else {
        return format!("?{:#06x} jt {jt} jf {jf} k {k:#x}", one.code);
    };
    let to = |skipped: usize| at + 1 + skipped;
    match opcode {
        BpfOpcode::LoadWord => format!("ld   [{k}]              ; {}", field(k)),
        BpfOpcode::LoadLength => "ld   len".into(),
        BpfOpcode::LoadConstant => format!("ld   #{k:#x}"),
        BpfOpcode::LoadScratch => format!("ld   M[{k}]"),
        BpfOpcode::LoadXLength => "ldx  len".into(),
        BpfOpcode::LoadXConstant => format!("ldx  #{k:#x}"),
        BpfOpcode::LoadXScratch => format!("ldx  M[{k}]"),
        BpfOpcode::Store => format!("st   M[{k}]"),
        BpfOpcode::StoreX => format!("stx  M[{k}]"),
        BpfOpcode::Alu(operation, operand) => format!("{}  {}", alu_name(operation), with(operand, k)),
        BpfOpcode::Negate => "neg".into(),
        BpfOpcode::JumpAlways => format!("ja   {}", to(k as usize)),
        BpfOpcode::Jump(test, operand) => {
            format!("{} {}, {}, {}", jump_name(test), with(operand, k), to(jt.into()), to(jf.into()))
        }
        BpfOpcode::ReturnConstant => format!("ret  #{k:#010x}       ; {}", SeccompAction::from_raw(k)),
        BpfOpcode::ReturnA => "ret  a".into(),
        BpfOpcode::CopyAToX => "tax".into(),
        BpfOpcode::CopyXToA => "txa".into(),
    }
}

fn with(operand: Operand, k: u32) -> String {
    match operand {
        Operand::Constant => format!("#{k:#x}"),
        Operand::X => "x".into(),
    }
}

fn alu_name(operation: AluOperation) -> &'static str {
    match operation {
        AluOperation::Add => "add",
        AluOperation::Subtract => "sub",
        AluOperation::Multiply => "mul",
        AluOperation::Divide => "div",
        AluOperation::Or => "or ",
        AluOperation::And => "and",
        AluOperation::ShiftLeft => "lsh",
        AluOperation::ShiftRight => "rsh",
        AluOperation::Xor => "xor",
    }
}

fn jump_name(test: JumpTest) -> &'static str {
    match test {
        JumpTest::Equal => "jeq ",
        JumpTest::Greater => "jgt ",
        JumpTest::GreaterOrEqual => "jge ",
        JumpTest::AnyBit => "jset",
    }
}

/// The part of `struct seccomp_data` at `offset`.
fn field(offset: u32) -> String {
    match offset {
        seccomp_offsets::NR => "number of the call".into(),
        seccomp_offsets::ARCH => "architecture".into(),
        8 | 12 => "instruction pointer".into(),
        _ => {
            let index = (offset.wrapping_sub(seccomp_offsets::ARGS)) / 8;
            let half = if offset == seccomp_offsets::argument_low(index) { "low" } else { "high" };
            format!("args[{index}], {half} half")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_says_where_it_goes_and_what_it_means() {
        let program = [
            BpfOpcode::LoadWord.with(4),
            BpfInstruction { jt: 0, jf: 1, ..BpfOpcode::Jump(JumpTest::Equal, Operand::Constant).with(0xc000_003e) },
            BpfOpcode::ReturnConstant.with(SeccompAction::Errno(38).to_raw()),
            BpfOpcode::LoadWord.with(seccomp_offsets::argument_high(1)),
            BpfOpcode::JumpAlways.with(0),
            BpfInstruction { code: 0x30, jt: 1, jf: 2, k: 3 },
            BpfOpcode::ReturnConstant.with(SeccompAction::Allow.to_raw()),
        ];
        let expected = "   0: ld   [4]              ; architecture
   1: jeq  #0xc000003e, 2, 3
   2: ret  #0x00050026       ; errno 38 (ENOSYS)
   3: ld   [28]              ; args[1], high half
   4: ja   5
   5: ?0x0030 jt 1 jf 2 k 0x3
   6: ret  #0x7fff0000       ; allow";
        if cfg!(target_endian = "little") {
            assert_eq!(disassemble(&program).join("\n"), expected);
        }
    }
}
