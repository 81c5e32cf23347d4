//! The kernel's interpreter of a program, in process.

use super::check::SCRATCH_WORDS;
use super::data::seccomp_offsets;
use super::{AluOperation, BpfInstruction, BpfOpcode, JumpTest, Operand, SeccompData};

/// Runs `program` on `data` and gives what it returns. A program that is not valid returns 0, kill the thread.
pub fn evaluate(program: &[BpfInstruction], data: &SeccompData) -> u32 {
    let (mut a, mut x) = (0u32, 0u32);
    let mut scratch = [0u32; SCRATCH_WORDS];
    let mut at = 0usize;
    // Jumps go forward only, so this ends.
    while let Some(instruction) = program.get(at) {
        at += 1;
        let k = instruction.k;
        let Some(opcode) = instruction.opcode() else { return 0 };
        let word = |index: u32| scratch.get(index as usize).copied().unwrap_or(0);
        let value = |operand| if operand == Operand::X { x } else { k };
        match opcode {
            BpfOpcode::LoadWord => match data.word(k) {
                Some(word) => a = word,
                None => return 0,
            },
            BpfOpcode::LoadLength => a = seccomp_offsets::SIZE,
            BpfOpcode::LoadConstant => a = k,
            BpfOpcode::LoadScratch => a = word(k),
            BpfOpcode::LoadXLength => x = seccomp_offsets::SIZE,
            BpfOpcode::LoadXConstant => x = k,
            BpfOpcode::LoadXScratch => x = word(k),
            BpfOpcode::Store | BpfOpcode::StoreX => match scratch.get_mut(k as usize) {
                Some(place) => *place = if opcode == BpfOpcode::Store { a } else { x },
                None => return 0,
            },
            BpfOpcode::Alu(operation, operand) => match alu(operation, a, value(operand)) {
                Some(result) => a = result,
                None => return 0,
            },
            BpfOpcode::Negate => a = a.wrapping_neg(),
            BpfOpcode::JumpAlways => at = at.saturating_add(k as usize),
            BpfOpcode::Jump(test, operand) => {
                let skip = if holds(test, a, value(operand)) { instruction.jt } else { instruction.jf };
                at += usize::from(skip);
            }
            BpfOpcode::ReturnConstant => return k,
            BpfOpcode::ReturnA => return a,
            BpfOpcode::CopyAToX => x = a,
            BpfOpcode::CopyXToA => a = x,
        }
    }
    0
}

/// `None` where the kernel ends the program with 0: division by zero.
fn alu(operation: AluOperation, a: u32, operand: u32) -> Option<u32> {
    Some(match operation {
        AluOperation::Add => a.wrapping_add(operand),
        AluOperation::Subtract => a.wrapping_sub(operand),
        AluOperation::Multiply => a.wrapping_mul(operand),
        AluOperation::Divide => return a.checked_div(operand),
        AluOperation::Or => a | operand,
        AluOperation::And => a & operand,
        // Shifts by X take its lower five bits, as the processor does.
        AluOperation::ShiftLeft => a.wrapping_shl(operand),
        AluOperation::ShiftRight => a.wrapping_shr(operand),
        AluOperation::Xor => a ^ operand,
    })
}

fn holds(test: JumpTest, a: u32, operand: u32) -> bool {
    match test {
        JumpTest::Equal => a == operand,
        JumpTest::Greater => a > operand,
        JumpTest::GreaterOrEqual => a >= operand,
        JumpTest::AnyBit => a & operand != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(program: &[BpfInstruction]) -> u32 {
        evaluate(program, &SeccompData::default())
    }

    #[test]
    fn arithmetic_wraps_and_a_division_by_zero_kills() {
        let with_x = |operation| {
            [
                BpfOpcode::LoadXConstant.with(0),
                BpfOpcode::LoadConstant.with(7),
                BpfOpcode::Alu(operation, Operand::X).with(0),
                BpfOpcode::ReturnA.with(0),
            ]
        };
        assert_eq!(run(&with_x(AluOperation::Subtract)), 7);
        assert_eq!(run(&with_x(AluOperation::Divide)), 0);
        assert_eq!(
            run(&[BpfOpcode::LoadConstant.with(1), BpfOpcode::Negate.with(0), BpfOpcode::ReturnA.with(0)]),
            u32::MAX
        );
    }

    #[test]
    fn registers_and_scratch_keep_what_they_are_given() {
        let program = [
            BpfOpcode::LoadConstant.with(5),
            BpfOpcode::Store.with(15),
            BpfOpcode::CopyAToX.with(0),
            BpfOpcode::LoadLength.with(0),
            BpfOpcode::Alu(AluOperation::Add, Operand::X).with(0),
            BpfOpcode::LoadXScratch.with(15),
            BpfOpcode::Alu(AluOperation::Multiply, Operand::X).with(0),
            BpfOpcode::ReturnA.with(0),
        ];
        assert_eq!(run(&program), (64 + 5) * 5);
    }
}
