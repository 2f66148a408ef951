-- Takes in blocks that were told of afterwards, and holds what has had too many of them
-- within a time. They are counted by when they happened: an old report holds nothing.
-- KEYS 1 held 2 the results of what may be held: hash, of which this knows lt (ms of those
--      blocks) and xb (examples, a line each)
-- ARGV 1 field of the hold 2 how many are too many 3 within (ms) 4 the hold as JSON
--      5 after how long it lifts itself (ms), 0 = never 6 the longest that grows to
--      7 when the blocks were, ms with spaces between 8.. examples
-- Returns the hold as JSON, '' where nothing was held by this call.
if stands(redis.call('HGET', KEYS[1], ARGV[1])) then return '' end
local count, since = tonumber(ARGV[2]), now - tonumber(ARGV[3])
local times = {}
for at in string.gmatch((redis.call('HGET', KEYS[2], 'lt') or '') .. ' ' .. ARGV[7], '%d+') do
  if tonumber(at) > since then times[#times + 1] = tonumber(at) end
end
table.sort(times)
local examples = {}
for text in string.gmatch(redis.call('HGET', KEYS[2], 'xb') or '', '[^\n]+') do examples[#examples + 1] = text end
for i = 8, #ARGV do examples[#examples + 1] = ARGV[i] end
while #examples > 3 do table.remove(examples, 1) end
if #times >= count then
  redis.call('DEL', KEYS[2])
  local hold = cjson.decode(ARGV[4])
  if #examples > 0 then hold.examples = examples end
  local _, stored = begin(KEYS[1], ARGV[1], hold, tonumber(ARGV[5]), tonumber(ARGV[6]))
  return stored
end
for i = 1, #times do times[i] = string.format('%.0f', times[i]) end
redis.call('HSET', KEYS[2], 'lt', table.concat(times, ' '))
if #examples > 0 then redis.call('HSET', KEYS[2], 'xb', table.concat(examples, '\n')) end
redis.call('EXPIRE', KEYS[2], 86400)
return ''
