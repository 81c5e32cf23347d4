//! Lists of processors and memory nodes, as `cpuset.cpus` has them: `0-3,8`.

use std::fmt;
use std::str::FromStr;

/// The highest number taken; no kernel is built for more processors (`NR_CPUS`, at most 8192).
const HIGHEST: u32 = 8191;

/// Numbers in ranges, in order, none touching the next: the form in which the kernel gives them back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CpuList(Vec<(u32, u32)>);

/// Why a text is no list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CpuListError {
    #[error("the list is empty")]
    Empty,
    #[error("`{0}` is neither a number nor a range such as `0-3`")]
    Part(String),
    #[error("`{0}` runs backwards")]
    Backwards(String),
    #[error("`{0}` is beyond {HIGHEST}")]
    TooHigh(String),
}

impl CpuList {
    /// How many numbers are in it.
    pub fn count(&self) -> u32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Those that `other` does not have, each.
    pub fn without(&self, other: &Self) -> Vec<u32> {
        let has = |number: &u32| other.0.iter().any(|(first, last)| (first..=last).contains(&number));
        self.0.iter().flat_map(|(first, last)| *first..=*last).filter(|number| !has(number)).collect()
    }
}

impl FromStr for CpuList {
    type Err = CpuListError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut ranges = Vec::new();
        for part in text.trim().split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| text.trim().parse::<u32>().map_err(|_| CpuListError::Part(part.into()));
            let (first, last) = (number(first)?, number(last)?);
            if last > HIGHEST {
                return Err(CpuListError::TooHigh(part.into()));
            }
            if first > last {
                return Err(CpuListError::Backwards(part.into()));
            }
            ranges.push((first, last));
        }
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if first <= *end + 1 => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        if merged.is_empty() { Err(CpuListError::Empty) } else { Ok(Self(merged)) }
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part =
            |(first, last): &(u32, u32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
        f.pad(&self.0.iter().map(part).collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_comes_back_in_the_kernels_form() {
        for (written, held) in
            [("0", "0"), ("0-3,8", "0-3,8"), ("8, 2,1,0", "0-2,8"), ("0-5,2-3,6", "0-6"), ("3\n", "3")]
        {
            assert_eq!(written.parse::<CpuList>().unwrap().to_string(), held, "{written}");
        }
        assert_eq!("0-3,8".parse::<CpuList>().unwrap().count(), 5);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        assert_eq!("".parse::<CpuList>(), Err(CpuListError::Empty));
        for text in ["a", "1-", "-1", "1-2-3", "3-1", "0-8192"] {
            assert!(text.parse::<CpuList>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_a_host_lacks_is_told_apart() {
        let (wanted, there): (CpuList, CpuList) = ("0-5".parse().unwrap(), "0-1,4".parse().unwrap());
        assert_eq!(wanted.without(&there), [2, 3, 5]);
    }
}
