-- ARGV: ..., entries
local planned, ids = tonumber(ARGV[3]), {}
for _, entry in ipairs(redis.call('XPENDING', key, group, '-', '+', planned + MAX_PASSED)) do
  if #ids < planned and #redis.call('XRANGE', key, entry[1], entry[1]) == 0 then ids[#ids + 1] = entry[1] end
end
if #ids < planned then return refuse('fewer pending entries without payload than planned were found') end
return {'done', '', redis.call('XACK', key, group, unpack(ids)), 0}
