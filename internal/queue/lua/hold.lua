-- Writes a hold, where none stands. Of two the first one's reason counts, but a
-- cancellation replaces any other, and nothing replaces it.
-- KEYS 1 held
-- ARGV 1 field: campaign, '*', '*LOGIN' or '@GROUP' 2 the hold as JSON
--      3 after how long it lifts itself (ms), 0 = never 4 the longest that grows to
-- Returns the version of the holds by which this one stands.
local old = redis.call('HGET', KEYS[1], ARGV[1])
local hold = cjson.decode(ARGV[2])
local cancelled = old and string.find(old, '"state":"cancelled"', 1, true)
if cancelled or (stands(old) and hold.state ~= 'cancelled') then
  return redis.call('HGET', KEYS[1], '#') or raise(KEYS[1])
end
return (begin(KEYS[1], ARGV[1], hold, tonumber(ARGV[3]), tonumber(ARGV[4])))
