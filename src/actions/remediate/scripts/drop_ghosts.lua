-- ARGV: ..., entries
local ids = {}
for _, entry in ipairs(redis.call('XPENDING', key, group, '-', '+', tonumber(ARGV[3]))) do
  if #redis.call('XRANGE', key, entry[1], entry[1]) > 0 then return refuse('an entry has its payload') end
  ids[#ids + 1] = entry[1]
end
if #ids < tonumber(ARGV[3]) then return refuse('there are fewer pending entries than planned') end
return {'done', '', redis.call('XACK', key, group, unpack(ids))}
