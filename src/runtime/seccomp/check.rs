//! The kernel's check of a program (`bpf_check_classic`, `seccomp_check_filter`), before it is handed over.

use super::data::seccomp_offsets;
use super::{AluOperation, BpfInstruction, BpfOpcode, Operand};

/// `BPF_MAXINSNS`
pub const INSTRUCTIONS_LIMIT: usize = 4096;
/// `BPF_MEMWORDS`
pub const SCRATCH_WORDS: usize = 16;

/// Why the kernel would refuse a program; `at` is the number of the instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BpfCheckError {
    #[error("the program has {0} instructions; 1 to {INSTRUCTIONS_LIMIT} are allowed")]
    Length(usize),
    #[error("instruction {at} has the code {code:#x}, which seccomp does not take")]
    Code { at: usize, code: u16 },
    #[error("instruction {at} jumps beyond the end")]
    Jump { at: usize },
    #[error("instruction {at} loads offset {offset} of the data, which is unaligned or beyond its 64 bytes")]
    Offset { at: usize, offset: u32 },
    #[error("instruction {at} divides by zero")]
    DivideByZero { at: usize },
    #[error("instruction {at} shifts by {by} bits")]
    Shift { at: usize, by: u32 },
    #[error("instruction {at} uses scratch word {word}; there are {SCRATCH_WORDS}")]
    Scratch { at: usize, word: u32 },
    #[error("instruction {at} reads scratch word {word} that was not written on every way there")]
    ScratchUnset { at: usize, word: u32 },
    #[error("the last instruction is no return")]
    NoReturn,
}

/// Checks `program`.
pub fn check(program: &[BpfInstruction]) -> Result<(), BpfCheckError> {
    if program.is_empty() || program.len() > INSTRUCTIONS_LIMIT {
        return Err(BpfCheckError::Length(program.len()));
    }
    for (at, instruction) in program.iter().enumerate() {
        check_one(at, instruction, program.len())?;
    }
    let last = program.last().and_then(BpfInstruction::opcode);
    if !matches!(last, Some(BpfOpcode::ReturnConstant | BpfOpcode::ReturnA)) {
        return Err(BpfCheckError::NoReturn);
    }
    check_scratch(program)
}

fn check_one(at: usize, instruction: &BpfInstruction, length: usize) -> Result<(), BpfCheckError> {
    let k = instruction.k;
    let opcode = instruction.opcode().ok_or(BpfCheckError::Code { at, code: instruction.code })?;
    match opcode {
        BpfOpcode::LoadWord if !k.is_multiple_of(4) || k >= seccomp_offsets::SIZE => {
            Err(BpfCheckError::Offset { at, offset: k })
        }
        BpfOpcode::Alu(AluOperation::Divide, Operand::Constant) if k == 0 => Err(BpfCheckError::DivideByZero { at }),
        BpfOpcode::Alu(AluOperation::ShiftLeft | AluOperation::ShiftRight, Operand::Constant) if k >= 32 => {
            Err(BpfCheckError::Shift { at, by: k })
        }
        BpfOpcode::LoadScratch | BpfOpcode::LoadXScratch | BpfOpcode::Store | BpfOpcode::StoreX
            if k as usize >= SCRATCH_WORDS =>
        {
            Err(BpfCheckError::Scratch { at, word: k })
        }
        BpfOpcode::JumpAlways if k as usize >= length - at - 1 => Err(BpfCheckError::Jump { at }),
        BpfOpcode::Jump(..) if at + usize::from(instruction.jt.max(instruction.jf)) + 1 >= length => {
            Err(BpfCheckError::Jump { at })
        }
        _ => Ok(()),
    }
}

/// Which scratch words are written on every way to each instruction. Jumps go forward only, so one pass is enough.
fn check_scratch(program: &[BpfInstruction]) -> Result<(), BpfCheckError> {
    let mut written_at = vec![u16::MAX; program.len() + 1];
    let mut written = 0u16;
    for (at, instruction) in program.iter().enumerate() {
        written &= written_at[at];
        match instruction.opcode() {
            Some(BpfOpcode::Store | BpfOpcode::StoreX) => written |= 1 << instruction.k,
            Some(BpfOpcode::LoadScratch | BpfOpcode::LoadXScratch) if written & (1 << instruction.k) == 0 => {
                return Err(BpfCheckError::ScratchUnset { at, word: instruction.k });
            }
            Some(BpfOpcode::JumpAlways) => {
                written_at[at + 1 + instruction.k as usize] &= written;
                written = u16::MAX;
            }
            Some(BpfOpcode::Jump(..)) => {
                written_at[at + 1 + usize::from(instruction.jt)] &= written;
                written_at[at + 1 + usize::from(instruction.jf)] &= written;
                written = u16::MAX;
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::seccomp::JumpTest;

    const ALLOW: u32 = 0x7fff_0000;

    fn jump(jt: u8, jf: u8) -> BpfInstruction {
        BpfInstruction { jt, jf, ..BpfOpcode::Jump(JumpTest::Equal, Operand::Constant).with(0) }
    }

    #[test]
    fn the_smallest_program_is_one_return() {
        assert_eq!(check(&[BpfOpcode::ReturnConstant.with(ALLOW)]), Ok(()));
        assert_eq!(check(&[]), Err(BpfCheckError::Length(0)));
        assert!(check(&vec![BpfOpcode::ReturnConstant.with(0); 4096]).is_ok());
        assert_eq!(check(&vec![BpfOpcode::ReturnConstant.with(0); 4097]), Err(BpfCheckError::Length(4097)));
    }

    #[test]
    fn each_fault_is_found_where_it_is() {
        let end = BpfOpcode::ReturnConstant.with(ALLOW);
        let divide = BpfOpcode::Alu(AluOperation::Divide, Operand::Constant);
        let shift = BpfOpcode::Alu(AluOperation::ShiftLeft, Operand::Constant);
        let cases = [
            (BpfOpcode::LoadWord.with(64), BpfCheckError::Offset { at: 0, offset: 64 }),
            (BpfOpcode::LoadWord.with(5), BpfCheckError::Offset { at: 0, offset: 5 }),
            (divide.with(0), BpfCheckError::DivideByZero { at: 0 }),
            (shift.with(32), BpfCheckError::Shift { at: 0, by: 32 }),
            (BpfOpcode::Store.with(16), BpfCheckError::Scratch { at: 0, word: 16 }),
            (BpfOpcode::LoadScratch.with(3), BpfCheckError::ScratchUnset { at: 0, word: 3 }),
            (BpfOpcode::JumpAlways.with(1), BpfCheckError::Jump { at: 0 }),
            (jump(0, 1), BpfCheckError::Jump { at: 0 }),
            (jump(1, 0), BpfCheckError::Jump { at: 0 }),
            // BPF_LD | BPF_B | BPF_ABS is for packets.
            (BpfInstruction { code: 0x30, jt: 0, jf: 0, k: 0 }, BpfCheckError::Code { at: 0, code: 0x30 }),
        ];
        for (instruction, error) in cases {
            assert_eq!(check(&[instruction, end]), Err(error));
        }
        assert_eq!(check(&[BpfOpcode::LoadConstant.with(1)]), Err(BpfCheckError::NoReturn));
    }

    #[test]
    fn a_scratch_word_must_be_written_on_every_way() {
        let end = BpfOpcode::ReturnA.with(0);
        let one_way = [jump(1, 0), BpfOpcode::Store.with(2), BpfOpcode::LoadScratch.with(2), end];
        assert_eq!(check(&one_way), Err(BpfCheckError::ScratchUnset { at: 2, word: 2 }));
        let both_ways =
            [BpfOpcode::Store.with(2), jump(1, 0), BpfOpcode::Negate.with(0), BpfOpcode::LoadScratch.with(2), end];
        assert_eq!(check(&both_ways), Ok(()));
    }
}
