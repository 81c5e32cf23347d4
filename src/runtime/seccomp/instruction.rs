//! Classic BPF, as far as seccomp takes it: an instruction, and what its code means.

/// One instruction, laid out as the kernel reads it (`struct sock_filter`): the code, how many instructions to skip if a
/// test holds and if not, and a constant.
pub use crate::runtime::sys::SockFilter as BpfInstruction;

/// The second operand of arithmetic and tests; the first is always the accumulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operand {
    /// The instruction's `k`.
    Constant,
    /// The index register.
    X,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AluOperation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Or,
    And,
    ShiftLeft,
    ShiftRight,
    Xor,
}

/// Tests of conditional jumps; all compare without sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JumpTest {
    Equal,
    Greater,
    GreaterOrEqual,
    /// Some bit of the operand is set.
    AnyBit,
}

/// What an instruction does. Only what seccomp takes (`seccomp_check_filter`); BPF for packets has more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BpfOpcode {
    /// A = the word at offset k of the data.
    LoadWord,
    /// A = size of the data.
    LoadLength,
    /// A = k.
    LoadConstant,
    /// A = scratch word k.
    LoadScratch,
    /// X = size of the data.
    LoadXLength,
    /// X = k.
    LoadXConstant,
    /// X = scratch word k.
    LoadXScratch,
    /// Scratch word k = A.
    Store,
    /// Scratch word k = X.
    StoreX,
    /// A = A operation operand.
    Alu(AluOperation, Operand),
    /// A = -A.
    Negate,
    /// Skip k instructions.
    JumpAlways,
    /// Skip jt instructions if the test holds, else jf.
    Jump(JumpTest, Operand),
    /// Answer k.
    ReturnConstant,
    /// Answer A.
    ReturnA,
    /// X = A.
    CopyAToX,
    /// A = X.
    CopyXToA,
}

const ALU_CODES: [(AluOperation, u16); 9] = [
    (AluOperation::Add, 0x00),
    (AluOperation::Subtract, 0x10),
    (AluOperation::Multiply, 0x20),
    (AluOperation::Divide, 0x30),
    (AluOperation::Or, 0x40),
    (AluOperation::And, 0x50),
    (AluOperation::ShiftLeft, 0x60),
    (AluOperation::ShiftRight, 0x70),
    (AluOperation::Xor, 0xa0),
];

const JUMP_CODES: [(JumpTest, u16); 4] =
    [(JumpTest::Equal, 0x10), (JumpTest::Greater, 0x20), (JumpTest::GreaterOrEqual, 0x30), (JumpTest::AnyBit, 0x40)];

const SIMPLE_CODES: [(BpfOpcode, u16); 14] = [
    (BpfOpcode::LoadWord, 0x20),
    (BpfOpcode::LoadLength, 0x80),
    (BpfOpcode::LoadConstant, 0x00),
    (BpfOpcode::LoadScratch, 0x60),
    (BpfOpcode::LoadXLength, 0x81),
    (BpfOpcode::LoadXConstant, 0x01),
    (BpfOpcode::LoadXScratch, 0x61),
    (BpfOpcode::Store, 0x02),
    (BpfOpcode::StoreX, 0x03),
    (BpfOpcode::Negate, 0x84),
    (BpfOpcode::JumpAlways, 0x05),
    (BpfOpcode::ReturnConstant, 0x06),
    (BpfOpcode::ReturnA, 0x16),
    (BpfOpcode::CopyAToX, 0x07),
];
const COPY_X_TO_A: u16 = 0x87;
const CLASS_ALU: u16 = 0x04;
const CLASS_JUMP: u16 = 0x05;
const SOURCE_X: u16 = 0x08;

impl BpfOpcode {
    /// The code of the instruction set (linux/bpf_common.h).
    pub fn code(self) -> u16 {
        let source = |operand| if operand == Operand::X { SOURCE_X } else { 0 };
        match self {
            Self::Alu(operation, operand) => {
                let (_, code) = ALU_CODES[operation as usize];
                CLASS_ALU | code | source(operand)
            }
            Self::Jump(test, operand) => {
                let (_, code) = JUMP_CODES[test as usize];
                CLASS_JUMP | code | source(operand)
            }
            Self::CopyXToA => COPY_X_TO_A,
            simple => SIMPLE_CODES.iter().find(|(one, _)| *one == simple).map_or(COPY_X_TO_A, |(_, code)| *code),
        }
    }

    /// What `code` means; `None` if seccomp does not take it.
    pub fn from_code(code: u16) -> Option<Self> {
        if code == COPY_X_TO_A {
            return Some(Self::CopyXToA);
        }
        if let Some((simple, _)) = SIMPLE_CODES.iter().find(|(_, one)| *one == code) {
            return Some(*simple);
        }
        let operand = if code & SOURCE_X != 0 { Operand::X } else { Operand::Constant };
        let operation = code & 0xf0;
        match code & !0xf8 {
            CLASS_ALU => {
                let (alu, _) = ALU_CODES.iter().find(|(_, one)| *one == operation)?;
                Some(Self::Alu(*alu, operand)).filter(|opcode| opcode.code() == code)
            }
            CLASS_JUMP => {
                let (test, _) = JUMP_CODES.iter().find(|(_, one)| *one == operation)?;
                Some(Self::Jump(*test, operand)).filter(|opcode| opcode.code() == code)
            }
            _ => None,
        }
    }

    /// An instruction with this code, no jumps, and the constant `k`.
    pub fn with(self, k: u32) -> BpfInstruction {
        BpfInstruction { code: self.code(), jt: 0, jf: 0, k }
    }
}

impl BpfInstruction {
    /// What the instruction does; `None` if seccomp does not take it.
    pub fn opcode(&self) -> Option<BpfOpcode> {
        BpfOpcode::from_code(self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_meanings_belong_together() {
        let known: Vec<(u16, BpfOpcode)> =
            (0..=u16::MAX).filter_map(|code| Some((code, BpfOpcode::from_code(code)?))).collect();
        // 14 + tax/txa + 9 operations and 4 tests with two operands each.
        assert_eq!(known.len(), 15 + 2 * 9 + 2 * 4);
        assert!(known.iter().all(|(code, opcode)| opcode.code() == *code));
        assert!(ALU_CODES.iter().enumerate().all(|(at, (operation, _))| *operation as usize == at));
        assert!(JUMP_CODES.iter().enumerate().all(|(at, (test, _))| *test as usize == at));
    }

    #[test]
    fn codes_are_those_of_the_c_library() {
        let expected = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
        assert_eq!(BpfOpcode::Jump(JumpTest::GreaterOrEqual, Operand::Constant).code(), expected);
        assert_eq!(BpfOpcode::LoadWord.code(), (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16);
        assert_eq!(BpfOpcode::ReturnConstant.code(), (libc::BPF_RET | libc::BPF_K) as u16);
        assert_eq!(BpfOpcode::CopyXToA.code(), (libc::BPF_MISC | libc::BPF_TXA) as u16);
        assert_eq!(
            BpfOpcode::Alu(AluOperation::Xor, Operand::X).code(),
            (libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X) as u16
        );
    }
}
