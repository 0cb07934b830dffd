//! Ranges in names: `r12-h[02-04,07]` is four hosts.

/// The most names one range may stand for.
const RANGE_LIMIT: u64 = 4096;

/// Every name a text stands for: itself, if there is no range in it. The error says what is wrong with the range.
pub(crate) fn expand(text: &str) -> Result<Vec<String>, String> {
    let Some((before, rest)) = text.split_once('[') else {
        return if text.contains(']') {
            Err("a ] without a [".to_owned())
        } else {
            Ok(vec![text.to_owned()])
        };
    };
    let (inside, after) = rest.split_once(']').ok_or("a [ without a ]")?;
    if after.contains(['[', ']']) || inside.contains('[') {
        return Err("more than one range".to_owned());
    }
    let mut names = Vec::new();
    for part in inside.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (number(first)?, number(last)?);
        if from > to {
            return Err(format!("the range {part} runs backwards"));
        }
        if to - from >= RANGE_LIMIT || names.len() as u64 + (to - from) >= RANGE_LIMIT {
            return Err(format!("more than {RANGE_LIMIT} names in a range"));
        }
        let width = first.len();
        names.extend((from..=to).map(|n| format!("{before}{n:0width$}{after}")));
    }
    Ok(names)
}

fn number(text: &str) -> Result<u64, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits && text.len() <= 9);
    number.ok_or_else(|| format!("{text:?} in a range is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_expanded() {
        let expanded = |text: &str| expand(text).expect("it is well formed");
        assert_eq!(expanded("r12-h01"), ["r12-h01"]);
        assert_eq!(expanded("r12-h[08-10]"), ["r12-h08", "r12-h09", "r12-h10"]);
        assert_eq!(expanded("h[1-2,7]x"), ["h1x", "h2x", "h7x"]);
        assert_eq!(expanded("10.0.0.[9-10]"), ["10.0.0.9", "10.0.0.10"]);
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for bad in [
            "h[",
            "h]",
            "h[]",
            "h[a-b]",
            "h[3-1]",
            "h[1-2][3-4]",
            "h[1-[2]]",
            "h[1-999999999]",
            "h[+1-2]",
        ] {
            assert!(expand(bad).is_err(), "{bad}");
        }
        assert!(expand("h[0-4095]").is_ok());
        assert!(expand("h[0-4096]").is_err());
        assert!(expand("h[0-4000,5000-5200]").is_err());
    }
}
