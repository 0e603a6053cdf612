/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * router_words.c - the words by which router.c knows what a message asks for.
 *
 * A word stands for all that begin with it; with a full stop behind it, for itself alone. '_' is the blank inside a
 * phrase. Written as router.c folds text: small letters without accents (ß is s), no apostrophes; Arabic without vowel
 * signs, hamza and ta marbuta. A row has languages in the order English, German, French, Spanish, Italian, Portuguese,
 * Russian, Chinese, Japanese, Arabic, then a few words of others; one that several share stands once. Chosen by looking at
 * two thirds of tests/data/messages.tsv (its head says which); tests/unit/test_router.c finds each of them in a message.
 */
#include "core/router.h"

const struct router_words router_words[] = {
{ SIGN_CHAT,
	"hi. hello hey. yo. thank thx. ty. bye. goodbye good_morning good_evening good_night lol. haha ok. okay. cool. great. "
	"nice. perfect. wow. welcome cheers. test. how_are_you how_s_it how_is_it_going what_s_up see_you talk_to_you "
	"never_mind who_are_you hallo guten_morgen guten_tag guten_abend gute_nacht danke vielen_dank tschus moin servus "
	"super. wie_geht bis_morgen bonjour bonsoir salut. merci. bonne_nuit ca_va coucou au_revoir hola. buenos_dias "
	"buenas_noches buenas_tardes gracias que_tal adios jaja hasta_luego como_estas ciao. buongiorno buonasera buonanotte "
	"grazie tutto_bene come_stai arrivederci oi. ola. bom_dia boa_noite boa_tarde obrigad tudo_bem tchau valeu. привет "
	"здравствуй добрый_день доброе_утро добрый_вечер спасибо пока. ок. как_дела спокойной_ночи 你好 您好 早上好 晚安 谢谢 "
	"謝謝 再见 哈哈 在吗 你是谁 こんにちは おはよう こんばんは ありがとう 了解 さようなら おやすみ مرحبا السلام_عليكم "
	"صباح_الخير مساء_الخير شكرا كيف_حالك مع_السلامه اهلا hoi. dank_je bedankt hej. tack. czesc dzieki merhaba tesekkur "
	"selam. 안녕 감사 고마워 नमस्ते धन्यवाद дякую" },
{ SIGN_FACT,
	"what_time what_day what_date what_s_the_date weather rain. temperature capital_of how_many how_much how_tall how_high "
	"how_old how_far how_long_is what_year when_is when_was when_did where_is remind set_a timer alarm shopping_list "
	"to_my_list spell. plural mean. meaning_of translate how_do_i_say how_do_you_say convert play. turn_on turn_off "
	"exchange_rate joke what_s_the_name what_is_the_name wie_spat uhrzeit wetter regnet hauptstadt wie_viel wie_hoch "
	"wie_alt wie_weit wie_gros wie_lang wann. wo_ist erinner wecker einkaufsliste was_heis wie_heis bedeutet ubersetz "
	"wie_schreibt_man welcher_tag geboren quelle_heure quel_temps meteo capitale. combien rappelle_moi minuteur reveil "
	"traduis comment_dit_on veut_dire signifie quand. pluriel quel_jour quelle_annee ou_est que_hora que_tiempo llover "
	"llueve capital_d cuanto cuanta recuerdame traduce como_se_dice significa cuando. en_que_ano que_dia donde_ che_ore "
	"che_tempo piove quanto. quanti. quante. ricordami sveglia traduci come_si_dice vuol_dire che_giorno in_che_anno "
	"quando. dove. chover quantos quantas lembra_me lembre_me traduz como_se_diz onde_fica который_час сколько погода "
	"столица напомни таймер будильник по_английски переведи что_значит когда. какой_день в_каком_году где. 几点 天气 首都 "
	"多少 提醒 闹钟 怎么说 怎么读 什么意思 作者 星期几 多高 多远 翻译 哪一年 在哪 何時 天気 いくつ 何キロ 何と言い 意味 "
	"起こして リスト 高さ 何曜日 何年 翻訳 タイマー アラーム いくら كم. الساعه الطقس عاصمه ذكرني منبه كيف_اقول ترجم معني "
	"متي في_اي_سنه اين hoe_laat hoeveel ktora_godzina pogoda saat_kac 몇_시 날씨 समय मौसम котра_година vad_ar_klockan" },
{ SIGN_WHO,
	"who_is who_was who_wrote who_invented who_proved who_painted who_discovered who_made who_did wer_ist wer_war wer_hat "
	"qui_est qui_a. qui_etait quien. chi_ha chi_e. chi_era quem. кто. 谁 誰 だれ من_كتب من_هو من_هي من_اثبت kto. kim. "
	"wie_is wie_heeft" },
{ SIGN_BRIEF,
	"no_need don_t_analyze just_say just_tell yes_or_no one_word ja_oder_nein nicht_analysieren sag_einfach nur_ja "
	"oui_ou_non pas_besoin dis_juste si_o_no no_hace_falta solo_di non_serve dimmi_solo sim_ou_nao nao_precisa да_или_нет "
	"не_надо просто. 不用 是或 はいかいいえ 一言で نعم_او_لا لا_داعي فقط_قل" },
{ SIGN_WORK,
	"write. rewrite draft. explain summar recipe recommend suggest ideas. proofread poem story letter. email. mail. post. "
	"pros_and_cons describe function. script. query regex command toast. speech names_for give_me translate itinerary "
	"packing simple_words schreib formulier erklar fas. zusammenfass zusammen. rezept empfiehl empfehl idee unterschied "
	"gedicht brief vorschlag vorteile nachteile geschichte sehenswurdig hoflicher korrigier ubersetz ecri redige explique "
	"resum recette recommande conseil propose. differenc lettre corrige traduis escrib explica receta recomiend sugier "
	"diferenci cuento. carta correo regalo traduce scriv spiega riassu ricetta consigli suggeri poesia lettera correggi "
	"traduci escrev recomend sugere sugira historia. corrija legenda traduz напиши объясни перескажи рецепт посоветуй "
	"порекомендуй придумай отлича письмо стих исправь кратко поздравлени переведи 写 解释 总结 推荐 区别 诗 邮件 介绍 改得 "
	"故事 名字 翻译 書いて 説明 要約 おすすめ 違い 詩 メール 考えて 作って 直して 教えて コード 翻訳 اكتب اشرح لخص طريقه "
	"اقترح الفرق قصيده رساله صحح نصايح داله اعطني ترجم schrijf leg_uit recept napisz przepis yaz. tarif 설명 써_줘 लिखो "
	"skriv поясни" },
{ SIGN_HOW,
	"how_does how_do_i how_do_you how_can how_to should_i what_should causes. tips. wie_funktioniert wie_kann wie_mach "
	"tipps comment. visiter como. come. cosa_vedere как. 怎么 作り方 方法 كيف. ازور 방법" },
{ SIGN_WHY,
	"why. warum weshalb wieso pourquoi por_que perche почему зачем 为什么 為什麼 なぜ どうして لماذا waarom dlaczego neden "
	"왜 क्यों varfor чому" },
{ SIGN_PROVE,
	"prove. proof. show_that derive. disprove beweis. beweise. beweisen leite. herleit zeig_das zeige_das demontre. "
	"demontrer demontrez prouve. prouver montre_que demuestra. demostrar demuestre prueba_que deduce. dimostra. dimostrare "
	"ricava. prova_que demonstre. demonstra. deduza. mostre_que докажи. докажите доказать выведи. выведите покажи_что 证明 "
	"證明 推导 推導 証明 導出 اثبت. برهن. اشتق bewijs. udowodnij kanitla 증명 सिद्ध bevisa доведи." },
{ SIGN_DEEP,
	"analys analyz evaluat compare. assess weigh. critique argument strateg trade_off tradeoff investigat root_cause "
	"justify in_depth contradict options. consider. review. order_and and_why. risks step_by_step carefully schritt_fur "
	"paso_a_paso scenarios lohnt beurteil bewert vergleich prufe. abwag widerspr begrund reihenfolge aussichten risiken "
	"evalue. compare_les hierarchis justifi quel_ordre que_faut_il vaut_il demarches analiza. evalua. compara. estrateg "
	"revisa. ventajas riesgos analizz valuta. confronta. giustific pro_e_i_contro conviene rischi analis avali proponh "
	"riscos direitos проанализ оцени. сравни стратег обоснуй исследуй шансы насколько стоит_ли риски 分析 比较 评估 策略 "
	"权衡 论证 指出 胜算 比較 評価 検討 踏まえ リスク 対策 حلل قارن قيم. استراتيج المخاطر حجج حقوق" },
{ SIGN_BUILD,
	"design. architect implement migrat refactor optimi scalab distributed lock_free schema parser compiler fault_toleran "
	"downtime entwirf entwickle. skalier ausfall rechenzentr umbau. concoi conception base_de_donnees disena. arquitect "
	"progetta architett projet arquitet desenha_uma спроектируй архитект реализуй миграц оптимиз 设计 架构 实现 迁移 优化 "
	"重构 容灾 設計 実装 アーキテクチャ 移行 最適化 صمم بنيه نظام zaprojektuj ontwerp" },
{ SIGN_FAULT,
	"debug crash segfault deadlock race_condition memory_leak traceback exception. stack_trace valgrind sigsegv bug. bugs "
	"what_s_wrong undefined_behavior goroutine mutex latency too_many_open absturz sturzt fehler. speicherleck plante. "
	"fuite cuelga trava. blocca падает зависает утечк отладь 崩溃 死锁 内存 报错 泄漏 デッドロック クラッシュ バグ 原因 "
	"يتعطل خلل" },
{ SIGN_SCIENCE,
	"theorem conject integral primes. prime_number irrational matri eigenv quant relativi entrop converg continuous "
	"countab probabil expected_ halting incomplet polynom polinom lemma topolog hypothes hipotes paradox geometr "
	"thermodynam derivative differential godel riemann euler fourier schrodinger lagrang maxwell satz_von primzahl wurzel "
	"abzahlbar stetig wahrscheinlich nombre_premier nombres_premiers racine_de ensemble_ denombrab teorema. numeros_primos "
	"raiz_ numerab numeri_primi radice_ irrazional irraciona numero_primo enumerav теорем гипотез простых_чисел "
	"простые_числа корень_из иррационал сходи вещественн счетн формул интеграл вероятност квантов парадокс 定理 猜想 素数 "
	"质数 无理数 無理数 实数 級数 级数 根号 ルート 积分 積分 概率 確率 量子 相对论 相対性 悖论 مبرهن الاعداد جذر تكامل "
	"احتمال الكم. النسبيه priemgetal niewymiern asal_sayi 무리수 अभाज्य" },
{ SIGN_CASE,
	"contract clause landlord tenant liabil lawsuit lawyer sue. court. employer dismiss evict custody divorce enforceable "
	"deposit inherit tax. taxes mortgage pension invest loan debt insurance doctor dentist cardiolog hospital medic dose "
	"symptom blood_ diagnos prescri fever mg. pregnan surgery vermieter kundig gekundigt klausel vertrag anwalt gericht "
	"klage. scheidung erbe. geerbt steuer gmbh kredit zins rente. arzt tablette antibioti schwindlig schwanger fieber "
	"frist proprietaire loyer bail. contrat avocat tribunal licenci heritage impot plafond salarie pret. taux. retraite "
	"tension vertige enceinte fievre despid indemniza clausul abogado demanda arrend alquil herencia hipoteca impuesto "
	"prestamo deuda embaraz fiebre sintoma mutuo affitto avvocato licenziat eredita imposta tasse. prestito farmac incinta "
	"febbre confine. demitid aluguel advogado heranca imposto juros emprestimo financiamento divida gravida febre remedio "
	"licenca уволил увольнен суд. суде юрист договор аренд наследств налог кредит ипотек долг врач лекарств принимаю "
	"давлени симптом беремен калий 辞退 仲裁 律师 法院 合同 赔偿 补偿 房贷 贷款 利率 医生 服用 症状 出血 血压 怀孕 发烧 "
	"离婚 退職 解雇 訴訟 弁護士 契約 金利 相続 年金 住宅 ローン 処方 飲み合わせ 妊娠 血圧 薬 فصلتني محام محكم عقد. قانون "
	"قرض القرض فايده ايجار ميراث الطبيب دواء مضاد حامل werkgever ontsla" },
{ SIGN_PLAN,
	"plan. plan_a roadmap timeline budget deadline marathon plane. planung zeitplan planifi plan_de presupuesto piano_di "
	"pianifica planej plano_de orcamento план. бюджет 计划 规划 预算 計画 予算 手順 خطه ميزانيه" },
{ SIGN_OWN,
	"my. i_m we. our mein ich. wir. unser mon. ma. mes. je. notre mi. mis. me. tengo il_mio la_mia ho. meu minha fui. "
	"nosso мой моя меня мне наш 我 私 母 父 会社 والدي برنامجي mijn" },
{ SIGN_WORDS, NULL },
};
