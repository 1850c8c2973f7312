//! Which modules and crates a source file names. Read from tokens, so comments and texts do not count.

use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};

/// A path that begins at the crate's root, or at a crate: its parts, and its line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    pub parts: Vec<String>,
    pub line: usize,
}

/// Every path in `source` that leads into the crate's own modules, as `crate::…`, whatever it is written as, and every
/// word that stands where a crate's name can stand. `module`: the file's own place, such as `["store", "pool"]`.
pub fn names_in(source: &str, module: &[String]) -> Vec<Name> {
    let tokens: TokenStream = source.parse().unwrap_or_else(|error| panic!("{module:?} is not Rust: {error}"));
    let mut found = Vec::new();
    read(tokens, module, &mut found);
    found.sort();
    found.dedup();
    found
}

fn read(tokens: TokenStream, module: &[String], found: &mut Vec<Name>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Group(group) => {
                read(group.stream(), &inner_module(&tokens, at, module), found);
                at += 1;
            }
            TokenTree::Ident(ident) if ident == "use" => {
                let (trees, end) = until_semicolon(&tokens, at + 1);
                use_tree(trees, &[], module, found);
                at = end;
            }
            TokenTree::Ident(_) if !follows_colons_or_dot(&tokens, at) => at = path(&tokens, at, module, found),
            TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => at += 1,
        }
    }
}

/// `mod name { … }`: what is inside is one module deeper.
fn inner_module(tokens: &[TokenTree], at: usize, module: &[String]) -> Vec<String> {
    let mut inner = module.to_vec();
    if let [.., TokenTree::Ident(keyword), TokenTree::Ident(name)] = &tokens[..at]
        && keyword == "mod"
        && matches!(&tokens[at], TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
    {
        inner.push(name.to_string());
    }
    inner
}

fn until_semicolon(tokens: &[TokenTree], from: usize) -> (&[TokenTree], usize) {
    let is_end = |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ';');
    let end = tokens[from..].iter().position(is_end).map_or(tokens.len(), |length| from + length);
    (&tokens[from..end], end)
}

/// One branch of a `use`: a prefix, then `{…}`, `*` or a last name.
fn use_tree(tokens: &[TokenTree], prefix: &[(String, usize)], module: &[String], found: &mut Vec<Name>) {
    let mut parts = prefix.to_vec();
    for token in tokens {
        match token {
            TokenTree::Ident(ident) if ident == "as" => break,
            TokenTree::Ident(ident) => parts.push(part(ident)),
            TokenTree::Punct(punct) if punct.as_char() == '*' => parts.push(("*".to_owned(), line(token))),
            TokenTree::Group(group) => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                let comma = |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',');
                for branch in inner.split(comma).filter(|branch| !branch.is_empty()) {
                    use_tree(branch, &parts, module, found);
                }
                return;
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
    keep(&parts, module, found);
}

/// A path in code; answers where it ends.
fn path(tokens: &[TokenTree], from: usize, module: &[String], found: &mut Vec<Name>) -> usize {
    let mut parts = Vec::new();
    let mut at = from;
    while let Some(TokenTree::Ident(ident)) = tokens.get(at) {
        parts.push(part(ident));
        at += 1;
        if !(is_colon(tokens.get(at)) && is_colon(tokens.get(at + 1))) {
            break;
        }
        at += 2;
    }
    // A lone word is a variable, a type or a keyword; `extern crate x` would be two.
    if parts.len() > 1 || matches!(tokens.get(from.wrapping_sub(1)), Some(TokenTree::Ident(word)) if word == "crate") {
        keep(&parts, module, found);
    }
    at.max(from + 1)
}

/// Resolves `crate`, `self` and `super`; drops what stays inside the own module's file.
fn keep(parts: &[(String, usize)], module: &[String], found: &mut Vec<Name>) {
    let Some((first, line)) = parts.first().cloned() else { return };
    let words: Vec<String> = parts.iter().map(|(word, _)| word.clone()).collect();
    let parts = match first.as_str() {
        "crate" | "posthaste" => [vec!["crate".to_owned()], words[1..].to_vec()].concat(),
        "self" | "super" => {
            let up = words.iter().take_while(|word| *word == "super").count();
            let rest = words.iter().skip_while(|word| *word == "super" || *word == "self").cloned();
            let base = &module[..module.len().saturating_sub(up)];
            std::iter::once("crate".to_owned()).chain(base.iter().cloned()).chain(rest).collect()
        }
        _ => words,
    };
    found.push(Name { parts, line });
}

fn part(ident: &Ident) -> (String, usize) {
    (ident.to_string(), ident.span().start().line)
}

fn line(token: &TokenTree) -> usize {
    token.span().start().line
}

fn is_colon(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == ':')
}

fn follows_colons_or_dot(tokens: &[TokenTree], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|before| tokens.get(before));
    let colons = is_colon(before) && at > 1 && is_colon(tokens.get(at - 2));
    colons || matches!(before, Some(TokenTree::Punct(punct)) if punct.as_char() == '.')
}
