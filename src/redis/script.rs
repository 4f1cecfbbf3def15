//! Two read-only scripts that keep payloads off the wire.
//!
//! `XINFO STREAM` carries the whole first and last entry, and `XRANGE` every entry; no option of theirs stops that. Run
//! inside a script they hand the payload to Lua instead, which answers with its size. That costs Redis a copy, so it is
//! done only for streams whose entries are large, and only where the user may run scripts.

use crate::model::sample::ServerInfo;

/// Replies as `XINFO STREAM` does, with the number of bytes in place of an entry's fields.
const FACTS: &str = "\
local r = redis.pcall('XINFO', 'STREAM', KEYS[1])
if r.err then return r end
for i = 1, #r, 2 do
  if (r[i] == 'first-entry' or r[i] == 'last-entry') and r[i + 1] then
    local size = 0
    for _, field in ipairs(r[i + 1][2]) do size = size + #field end
    r[i + 1] = {r[i + 1][1], size}
  end
end
return r";

/// Replies as `XRANGE` does, with the number of bytes in place of an entry's fields.
const RANGE: &str = "\
local r = redis.pcall('XRANGE', KEYS[1], ARGV[1], ARGV[2], 'COUNT', ARGV[3])
if r.err then return r end
for i, entry in ipairs(r) do
  local size = 0
  for _, field in ipairs(entry[2]) do size = size + #field end
  r[i] = {entry[1], size}
end
return r";

/// The command that runs scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    /// From 7.0 on: it can only read, and the server holds it to that.
    EvalRo,
    /// Before.
    Eval,
}

impl Script {
    /// The command for this server.
    pub(crate) fn on(server: &ServerInfo) -> Self {
        let major = server.version.split('.').next().and_then(|major| major.parse().ok());
        if major.is_some_and(|major: u32| major >= 7) { Self::EvalRo } else { Self::Eval }
    }

    /// Its name in the metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::EvalRo => "eval_ro",
            Self::Eval => "eval",
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::EvalRo => "EVAL_RO",
            Self::Eval => "EVAL",
        }
    }

    /// The words before the key.
    pub(crate) fn facts(self) -> [&'static [u8]; 3] {
        [self.word().as_bytes(), FACTS.as_bytes(), b"1"]
    }

    /// The words before the key; after it come start, end and limit.
    pub(crate) fn range(self) -> [&'static [u8]; 3] {
        [self.word().as_bytes(), RANGE.as_bytes(), b"1"]
    }
}
