//! A column of numbers in as few bits as its blocks need: noise takes the bits of its spread, and what is constant takes none.

use super::{Corrupt, put, take, unzigzag, zigzag};

/// Numbers of a block: few, so that an outlier widens few of them.
const BLOCK: usize = 32;

/// How a column is stored.
const NONE: u8 = 0;
const CONSTANT: u8 = 1;
const VALUES: u8 = 2;
const DIFFERENCES: u8 = 3;
/// Added where some numbers are absent: a block of bits says which are there.
const WITH_GAPS: u8 = 4;
/// As [`DIFFERENCES`], with the first number before them: it is far from 0, and would widen the first block.
const LATER_DIFFERENCES: u8 = 8;

/// Appends a column.
pub(super) fn put_column(bytes: &mut Vec<u8>, column: &[Option<i64>]) {
    let present: Vec<i64> = column.iter().flatten().copied().collect();
    let Some(first) = present.first() else {
        bytes.push(NONE);
        return;
    };
    let has_gaps = present.len() < column.len();
    if !has_gaps && present.iter().all(|value| value == first) {
        bytes.push(CONSTANT);
        put(bytes, zigzag(*first));
        return;
    }
    let values: Vec<u64> = present.iter().map(|value| zigzag(*value)).collect();
    let differences: Vec<u64> = present.windows(2).map(|pair| zigzag(pair[1].wrapping_sub(pair[0]))).collect();
    let (values, mut later) = (blocks(&values), Vec::new());
    put(&mut later, zigzag(*first));
    later.extend(blocks(&differences));
    let (form, smaller) = if values.len() <= later.len() { (VALUES, values) } else { (LATER_DIFFERENCES, later) };
    bytes.push(form + if has_gaps { WITH_GAPS } else { 0 });
    if has_gaps {
        bytes.extend(blocks(&column.iter().map(|value| u64::from(value.is_some())).collect::<Vec<_>>()));
    }
    bytes.extend(smaller);
}

/// Takes a column of so many numbers.
pub(super) fn take_column(bytes: &mut &[u8], count: usize) -> Result<Vec<Option<i64>>, Corrupt> {
    let (form, rest) = bytes.split_first().ok_or(Corrupt)?;
    *bytes = rest;
    match *form {
        NONE => return Ok(vec![None; count]),
        CONSTANT => return Ok(vec![Some(unzigzag(take(bytes)?)); count]),
        _ => {}
    }
    let present: Vec<bool> = match form & WITH_GAPS {
        0 => vec![true; count],
        _ => take_blocks(bytes, count)?.iter().map(|bit| *bit != 0).collect(),
    };
    let there = present.iter().filter(|present| **present).count();
    let numbers = match form & !WITH_GAPS {
        LATER_DIFFERENCES => {
            let first = take(bytes)?;
            let later = there.checked_sub(1).ok_or(Corrupt)?;
            std::iter::once(first).chain(take_blocks(bytes, later)?).collect()
        }
        _ => take_blocks(bytes, there)?,
    };
    let mut last = 0_i64;
    let mut values = numbers.iter().map(|number| match form & !WITH_GAPS {
        VALUES => Ok(unzigzag(*number)),
        DIFFERENCES | LATER_DIFFERENCES => {
            last = last.wrapping_add(unzigzag(*number));
            Ok(last)
        }
        _ => Err(Corrupt),
    });
    present.iter().map(|present| if *present { values.next().ok_or(Corrupt)?.map(Some) } else { Ok(None) }).collect()
}

/// Blocks of numbers: the smallest, the bits of the largest difference from it, and all differences in so many bits.
fn blocks(numbers: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for block in numbers.chunks(BLOCK) {
        let least = block.iter().copied().min().unwrap_or_default();
        let bits = block.iter().map(|number| u64::BITS - (number - least).leading_zeros()).max().unwrap_or_default();
        put(&mut bytes, least);
        bytes.push(bits as u8);
        let (mut held, mut filled) = (0_u128, 0);
        for number in block {
            held |= u128::from(number - least) << filled;
            filled += bits;
            while filled >= 8 {
                bytes.push(held as u8);
                (held, filled) = (held >> 8, filled - 8);
            }
        }
        if filled > 0 {
            bytes.push(held as u8);
        }
    }
    bytes
}

fn take_blocks(bytes: &mut &[u8], count: usize) -> Result<Vec<u64>, Corrupt> {
    let mut numbers = Vec::with_capacity(count);
    while numbers.len() < count {
        let in_block = (count - numbers.len()).min(BLOCK);
        let least = take(bytes)?;
        let (bits, rest) = bytes.split_first().ok_or(Corrupt)?;
        let bits = u32::from(*bits);
        if bits > u64::BITS {
            return Err(Corrupt);
        }
        let (packed, rest) = rest.split_at_checked((in_block * bits as usize).div_ceil(8)).ok_or(Corrupt)?;
        *bytes = rest;
        let (mut packed, mut held, mut filled) = (packed.iter(), 0_u128, 0);
        for _ in 0..in_block {
            while filled < bits {
                held |= u128::from(*packed.next().ok_or(Corrupt)?) << filled;
                filled += 8;
            }
            numbers.push(least.wrapping_add((held & ((1 << bits) - 1)) as u64));
            (held, filled) = (held >> bits, filled - bits);
        }
    }
    Ok(numbers)
}
