-- One heartbeat of a member: its counter rises, unless its record was taken away. With
-- it rises the stamp of the data, by Redis's clock: a member that has seen it higher
-- knows that Redis came back with older data, also when somebody else has raised it since.
-- KEYS 1 beats 2 gens 3 stamp (ms) 4 gap: the last time in which nobody beat, 'from to'
--      5 rewound
-- ARGV 1 nonce 2 the highest stamp the member has seen, 0 = none 3 how old data may be
--      for the members' memory to make up for it (ms) 4 '1' if data without a stamp is older
-- Returns {the counter, or -1 when the member was declared dead, the stamp, rewound as
-- 'stamp seen' or ''}. What is rewound stays so until accept.lua.
local clock = redis.call('TIME')
local stamp = clock[1] * 1000 + math.floor(clock[2] / 1000)
local seen, most = tonumber(ARGV[2]), tonumber(ARGV[3])
local function text(n) return string.format('%.0f', n) end

local old = tonumber(redis.call('GET', KEYS[3]) or '')
if old then
  stamp = math.max(stamp, old + 1) -- a clock that was set back makes no data older
  if stamp - old > most then redis.call('SET', KEYS[4], text(old) .. ' ' .. text(stamp)) end
end
local rewound = redis.call('GET', KEYS[5]) or ''
if seen > 0 and rewound == '' then
  local from, to = string.match(redis.call('GET', KEYS[4]) or '', '^(%d+) (%d+)$')
  if old and seen - old > most then
    rewound = text(old)
  elseif not old and ARGV[4] == '1' then
    rewound = '0'
  elseif from and seen - tonumber(from) > most and seen < tonumber(to) then
    rewound = from
  end
  if rewound ~= '' then
    rewound = rewound .. ' ' .. ARGV[2]
    redis.call('SET', KEYS[5], rewound)
  end
end
stamp = math.max(stamp, seen) -- what is noticed is noticed once, whatever the clock says
redis.call('SET', KEYS[3], text(stamp))
local beats = -1
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then beats = redis.call('HINCRBY', KEYS[1], ARGV[1], 1) end
return {beats, text(stamp), rewound}
