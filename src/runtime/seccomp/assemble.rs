//! Writes a program from its end to its beginning, so that the target of every jump is there before the jump.

use super::{BpfInstruction, BpfOpcode, JumpTest, Operand, SeccompAction};

/// Furthest that a conditional jump reaches, minus the room for two instructions put in between for its own sake.
const REACH: usize = 255 - 2;

/// An instruction already written, counted from the end of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label(usize);

/// A program in the making. Each method puts instructions before those that are there.
#[derive(Debug, Default)]
pub struct Assembler {
    /// Last instruction first.
    reversed: Vec<BpfInstruction>,
    /// Where each answer was written last.
    answers: Vec<(SeccompAction, Label)>,
}

impl Assembler {
    /// The instruction written last.
    fn here(&self) -> Label {
        Label(self.reversed.len() - 1)
    }

    fn push(&mut self, instruction: BpfInstruction) -> Label {
        self.reversed.push(instruction);
        self.here()
    }

    /// Instructions between the next one to be written and `label`.
    fn distance(&self, label: Label) -> usize {
        self.reversed.len() - label.0 - 1
    }

    /// Where `action` is answered: the place written last, or a new one.
    pub fn answer(&mut self, action: SeccompAction) -> Label {
        if let Some((_, label)) = self.answers.iter().find(|(one, _)| *one == action) {
            return *label;
        }
        let label = self.push(BpfOpcode::ReturnConstant.with(action.to_raw()));
        self.answers.push((action, label));
        label
    }

    /// The word at `offset`, then what is there.
    pub fn load(&mut self, offset: u32) -> Label {
        self.push(BpfOpcode::LoadWord.with(offset))
    }

    /// The accumulator and `mask`, then what is there.
    pub fn and(&mut self, mask: u32) -> Label {
        self.push(BpfOpcode::Alu(super::AluOperation::And, Operand::Constant).with(mask))
    }

    /// To `holds` if the accumulator passes `test` with `value`, else to `fails`.
    pub fn branch(&mut self, (test, value): (JumpTest, u32), holds: Label, fails: Label) -> Label {
        let holds = self.near(holds);
        let fails = self.near(fails);
        let reach = |label| u8::try_from(self.distance(label)).unwrap_or(u8::MAX);
        let (jt, jf) = (reach(holds), reach(fails));
        self.push(BpfInstruction { jt, jf, ..BpfOpcode::Jump(test, Operand::Constant).with(value) })
    }

    /// The next instruction written comes to `label`.
    pub fn go(&mut self, label: Label) -> Label {
        match self.distance(label) {
            0 => label,
            distance => self.push(BpfOpcode::JumpAlways.with(u32::try_from(distance).unwrap_or(u32::MAX))),
        }
    }

    /// `label`, or a stand-in for it that a conditional jump reaches: an answer is written again, to anything else leads
    /// an unconditional jump.
    fn near(&mut self, label: Label) -> Label {
        if self.distance(label) <= REACH {
            return label;
        }
        let Some(index) = self.answers.iter().position(|(_, one)| *one == label || self.is_same_answer(*one, label))
        else {
            return self.go(label);
        };
        let latest = self.answers[index].1;
        if self.distance(latest) <= REACH {
            return latest;
        }
        let again = self.push(self.reversed[label.0]);
        self.answers[index].1 = again;
        again
    }

    fn is_same_answer(&self, one: Label, other: Label) -> bool {
        self.reversed[one.0] == self.reversed[other.0]
    }

    /// The program, first instruction first.
    pub fn finish(mut self) -> Vec<BpfInstruction> {
        self.reversed.reverse();
        self.reversed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::seccomp::{SeccompData, evaluate, seccomp_offsets};

    #[test]
    fn jumps_beyond_their_reach_arrive() {
        // A chain of comparisons so long that its end is far from its beginning, all failing to the same far place.
        let mut program = Assembler::default();
        let deny = program.answer(SeccompAction::Errno(1));
        let allow = program.answer(SeccompAction::Allow);
        program.branch((JumpTest::Equal, 7), allow, deny);
        let far = program.load(seccomp_offsets::ARCH);
        let mut next = allow;
        for number in (0..600).rev() {
            next = program.branch((JumpTest::Equal, number), far, next);
        }
        program.load(seccomp_offsets::NR);
        let program = program.finish();
        assert!(super::super::check::check(&program).is_ok());
        for (nr, arch, expected) in [(0, 7, "a"), (599, 7, "a"), (5, 8, "d"), (599, 8, "d"), (600, 8, "a")] {
            let raw = evaluate(&program, &SeccompData { nr, arch, ..SeccompData::default() });
            let expected = if expected == "a" { SeccompAction::Allow } else { SeccompAction::Errno(1) };
            assert_eq!(SeccompAction::from_raw(raw), expected, "nr {nr} arch {arch}");
        }
    }
}
