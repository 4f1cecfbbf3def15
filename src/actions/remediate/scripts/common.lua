-- What every act checks first, in one script with what it changes. Anything that is not as planned ends it before it has written. All that
-- follows a first write is called so that its error can be told with what was changed.
-- KEYS: stream[, dead-letter stream]. ARGV: group, cursor at the plan, ...
-- Answers: how it ended, why, what was changed, and the pending entries without payload that were seen and left.
local key, group, cursor = KEYS[1], ARGV[1], ARGV[2]
-- Entries that are passed over in search of others: some milliseconds of Redis's time.
local MAX_PASSED = 1000

local function refuse(why, without_payload) return {'refused', why, 0, without_payload or 0} end

-- The error of a write, and how much was changed before it: an error by itself says that nothing was.
local function failed(answer, changed)
  if changed == 0 then return redis.error_reply(answer.err) end
  return {'failed', answer.err, changed, 0}
end

local function field(list, name)
  for i = 1, #list, 2 do
    if list[i] == name then return list[i + 1] end
  end
end

local function named(list, name)
  for _, item in ipairs(list) do
    if field(item, 'name') == name then return item end
  end
end

-- Whether one entry id is less than another. They are too large for Lua's numbers.
local function less(one, other)
  local a, b = {string.match(one, '^(%d+)-(%d+)$')}, {string.match(other, '^(%d+)-(%d+)$')}
  for i = 1, 2 do
    if #a[i] ~= #b[i] then return #a[i] < #b[i] end
    if a[i] ~= b[i] then return a[i] < b[i] end
  end
  return false
end

local groups = redis.pcall('XINFO', 'GROUPS', key)
if groups.err then
  if string.find(groups.err, 'no such key', 1, true) then return refuse('the stream is gone') end
  return redis.error_reply(groups.err)
end
local found = named(groups, group)
if not found then return refuse('the group is gone') end
if less(field(found, 'last-delivered-id'), cursor) then return refuse('the group is another one: its cursor moved back') end

local function consumer(name) return named(redis.call('XINFO', 'CONSUMERS', key, group), name) end
