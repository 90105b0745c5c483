//! The names of what a Dockerfile copies into its image, for the recipe of that image.

/// The sources of all COPY and ADD in `text`, relative to the context. Those that are the context itself, come
/// from another stage or from elsewhere, or hold variables, are left out.
pub(super) fn sources(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let mut found = Vec::new();
    let mut instruction = String::new();
    for line in lines {
        let (line, goes_on) = line.strip_suffix('\\').map_or((line, false), |line| (line, true));
        instruction.push_str(line);
        instruction.push(' ');
        if !goes_on {
            found.extend(copied(&instruction));
            instruction.clear();
        }
    }
    found.extend(copied(&instruction));
    found
}

fn copied(instruction: &str) -> Vec<String> {
    let (word, rest) = instruction.trim().split_once(char::is_whitespace).unwrap_or_default();
    if !["COPY", "ADD"].iter().any(|copy| word.eq_ignore_ascii_case(copy)) || rest.contains("--from=") {
        return Vec::new();
    }
    let words: Vec<String> = match serde_json::from_str(rest.trim()) {
        Ok(words) => words,
        Err(_) => rest.split_whitespace().map(str::to_owned).collect(),
    };
    let mut sources: Vec<String> = words.into_iter().filter(|word| !word.starts_with("--")).collect();
    sources.pop();
    let is_known = |source: &String| {
        let place = source.trim_matches(['.', '/']);
        !place.is_empty() && !source.contains("$") && !source.contains("://") && !source.starts_with("<<")
    };
    let relative = |source: String| source.trim_start_matches("./").trim_start_matches('/').to_owned();
    sources.into_iter().filter(is_known).map(relative).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_copied_from_the_context_is_found() {
        let text = "FROM x AS y\n# COPY no /no\ncopy --chown=1:1 a ./b/c \\\n  /d*.txt \\\n /to/\nRUN COPY no\n\
                    ADD [\"with blank\", \"/to\"]\nCOPY . /app\nCOPY --from=y q /q\nCOPY $V /v\nADD https://x/y /z\n";
        assert_eq!(sources(text), ["a", "b/c", "d*.txt", "with blank"]);
    }
}
